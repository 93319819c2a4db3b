"""The side of tracking that runs inside a stage: it appends to a local file, and a process of its own talks to W&B."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from qup.config.fingerprint import plain
from qup.config.schema import Tracking
from qup.config.views import EvaluateView, TrainView
from qup.files import write_text
from qup.pipeline.context import Context
from qup.study import config_of
from qup.tracking.spec import END, HISTORY, Spec, flat, lines_of, spec_of, study_folder

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""Seconds that `close` waits for W&B; what is not sent by then is sent by `qup sync`."""


class Tracker:
    """One tracked run. No method raises, and none waits for W&B but `close`, for PATIENCE_S at most."""

    def __init__(self, spec: Spec | None, folder: Path | None) -> None:
        self.spec, self.folder = spec, folder
        self._stream: TextIO | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._summary: dict[str, Any] = {}
        if spec is None or folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / END).unlink(missing_ok=True)
            spec.save(folder)
            if spec.steps is None:
                self._stream = (folder / HISTORY).open("a", encoding="utf-8")
            self._child = _follow(folder)
        except Exception as error:
            self._warn("is not tracked", error)

    @property
    def run_id(self) -> str:
        """W&B's id of this run; "" where nothing is tracked."""
        return self.spec.id if self.spec is not None else ""

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Figures of one step. A step that comes again replaces the earlier one."""
        if self._stream is None:
            return
        try:
            self._stream.write(lines_of([{**values, "step": step}]))
            self._stream.flush()
        except Exception as error:
            self._warn("lost a step", error)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Figures of the whole run."""
        self._summary |= flat(values)

    def close(self, *, failed: bool = False) -> None:
        """Ends the run and waits a little for what is still to be sent."""
        if self.spec is None or self.folder is None:
            return
        try:
            if self._stream is not None:
                self._stream.close()
            write_text(self.folder / END, json.dumps({"summary": self._summary, "failed": failed}))
            self._wait()
        except Exception as error:
            self._warn("did not end well", error)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def _wait(self) -> None:
        if self._child is None:
            return
        try:
            status = self._child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            end(self._child)
            self._warn(f"was not sent within {PATIENCE_S:.0f} s", None)
            return
        if status:
            self._warn(f"was not sent (status {status}, see {self.folder}/follower.log)", None)

    def _warn(self, what: str, error: Exception | None) -> None:
        why = f": {error}" if error is not None else ""
        log.warning("W&B run %s %s%s; `qup sync` sends it from the local log", self.run_id, what, why)


def open_tracker(
    tracking: Tracking,
    *,
    identity: str,
    kind: str,
    labels: Mapping[str, str],
    config: Mapping[str, Any],
    directory: Path,
    steps: Path | None = None,
) -> Tracker:
    """Starts tracking a stage; with tracking=none the tracker does nothing.

    `identity` is the artifact's (its key): a requeued stage goes on with the same run. `directory` outlives the stage
    (study_folder); the run has a folder of its own in it. With `steps`, a file of JSON lines that the stage writes anyway
    (each with its `step`) is followed, and `log` is not needed.
    """
    if tracking.name == "none":
        return Tracker(None, None)
    try:
        spec = spec_of(tracking, identity=identity, kind=kind, labels=labels, config=config, steps=steps)
    except Exception as error:
        log.warning("%s is not tracked: %s", kind, error)
        return Tracker(None, None)
    return Tracker(spec, directory / spec.id)


def stage_tracker(kind: str, view: TrainView | EvaluateView, ctx: Context, *, steps: Path | None = None) -> Tracker:
    """Tracks the stage that `ctx` belongs to, under its cell's full settings; of several tasks the first one's alone."""
    store = ctx.shared.parent
    return open_tracker(
        view.tracking if os.environ.get("RANK", "0") == "0" else replace(Tracking(), name="none"),
        identity=ctx.key,
        kind=kind,
        labels=view.labels,
        config=config_of(store, ctx.study, view.labels.get("cell", "")) or plain(view),
        directory=study_folder(store, ctx.study),
        steps=steps,
    )


def _follow(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "follower.log").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "qup.tracking.follower", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=follower_environment(),
        )


def follower_environment() -> dict[str, str]:
    """The environment of the process that talks to W&B: ours, without what makes it a rank of a training."""
    left_out = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**{name: value for name, value in os.environ.items() if name not in left_out}, "PYTHONPATH": path}


def end(child: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started; it leads a session of its own."""
    for number, grace in ((signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        until = time.monotonic() + grace
        while time.monotonic() < until and child.poll() is None:
            time.sleep(0.05)
    child.poll()
