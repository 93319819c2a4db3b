"""Checkpoints that are whole or not there: written under a step's own name, made valid by a marker that comes last."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from qup.errors import InputError, StoreError
from qup.files import flush, write_json

MARKER = "whole.json"
KEPT = 2
"""Whole checkpoints on disk: the newest, and the one to fall back to."""


@dataclass(frozen=True)
class State:
    """What a run needs beside weights and moments to go on as if it had not stopped.

    Data order, learning rate and random draws are functions of the configuration and the step, so the step stands for them.
    """

    step: int
    """Optimizer steps done."""
    key: str
    """Key of the stage it belongs to."""
    world_size: int
    zero_stage: int
    micro_batch: int
    skipped: int = 0
    """Steps left out for a gradient that was not finite."""
    skipped_in_row: int = 0
    files: dict[str, int] = field(default_factory=dict)
    """Relative path → bytes."""


@dataclass(frozen=True)
class Checkpoint:
    """A directory whose marker is there."""

    path: Path
    state: State

    def wrong_sizes(self) -> list[str]:
        """Files that are missing or not as long as they were when the marker was written."""
        return [name for name, size in self.state.files.items() if not _has_size(self.path / name, size)]

    def unreadable(self, rank: int, world_size: int) -> list[str]:
        """Archives whose checksums fail; each rank reads its share of the files."""
        return [name for name in sorted(self.state.files)[rank::world_size] if name.endswith(".pt") and not _sound(self.path / name)]


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _sound(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError):
        return False


class Checkpoints:
    """The checkpoint directory of one stage run. `hold` it before use; one process at a time may."""

    def __init__(self, root: Path, key: str, log: logging.Logger) -> None:
        self.root, self.key, self.log = root, key, log

    @contextmanager
    def hold(self, patience_s: float = 10.0) -> Iterator[None]:
        """Locks the directory for this process and its ranks. StoreError where another holds it longer than `patience_s`."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a+", encoding="utf-8") as stream:
            until = time.monotonic() + patience_s
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > until:
                        stream.seek(0)
                        raise StoreError(f"{self.root}: in use by {stream.read().strip() or 'another process'}") from None
                    time.sleep(0.1)
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            stream.flush()
            yield

    def path(self, step: int) -> Path:
        return self.root / f"step-{step:08d}"

    def whole(self) -> list[Checkpoint]:
        """Checkpoints with a marker, newest first."""
        found = []
        for marker in sorted(self.root.glob(f"step-*/{MARKER}"), reverse=True):
            try:
                found.append(Checkpoint(marker.parent, State(**json.loads(marker.read_text(encoding="utf-8")))))
            except (ValueError, TypeError):
                self.log.warning("%s: its marker is unreadable; left aside", marker.parent)
        return found

    def newest_sound(self) -> Checkpoint | None:
        """The newest checkpoint of this key whose files have their full length; says which it passed over.

        Raises StoreError where there is one of another key: it is never loaded, nor overwritten.
        """
        for checkpoint in self.whole():
            if checkpoint.state.key != self.key:
                raise StoreError(
                    f"{checkpoint.path}: belongs to stage {checkpoint.state.key!r}, this is {self.key!r}; move it away to start anew"
                )
            wrong = checkpoint.wrong_sizes()
            if not wrong:
                return checkpoint
            self.set_aside(checkpoint, f"{', '.join(wrong)} not as long as written")
        return None

    def set_aside(self, checkpoint: Checkpoint, why: str) -> None:
        """Takes a damaged checkpoint out of use."""
        self.log.warning("checkpoint of step %d is damaged (%s); falling back to the one before it", checkpoint.state.step, why)
        shutil.rmtree(checkpoint.path)

    def publish(self, state: State) -> None:
        """Makes a written checkpoint valid: its files on disk, then its marker, then the oldest ones gone."""
        path = self.path(state.step)
        files = {}
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name != MARKER:
                flush(file)
                files[file.relative_to(path).as_posix()] = file.stat().st_size
        write_json(path / MARKER, asdict(State(**{**asdict(state), "files": files})))
        self.tidy(keep=KEPT)

    def tidy(self, keep: int = KEPT) -> None:
        """Removes what is not among the newest `keep` whole checkpoints: older ones, half-written ones, converted ones."""
        kept = {checkpoint.path for checkpoint in self.whole()[:keep]}
        for path in (*self.root.glob("step-*"), *self.root.glob("universal-*")):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def unwritable(self, step: int, error: BaseException) -> StoreError:
        """The error of a checkpoint that could not be written; what there is of it is removed."""
        shutil.rmtree(self.path(step), ignore_errors=True)
        last = self.whole()
        survives = f"the one of step {last[0].state.step} is whole and the next run goes on from it" if last else "there is none before it"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return StoreError(f"checkpoint of step {step} could not be written to {self.root}: {reason}; {survives}")


def check_stage(checkpoint: Checkpoint, zero_stage: int) -> None:
    """InputError where a checkpoint was written under another ZeRO stage, whose optimizer state is cut otherwise."""
    if checkpoint.state.zero_stage != zero_stage:
        raise InputError(
            f"zero.stage={zero_stage}: {checkpoint.path} was written under stage {checkpoint.state.zero_stage}; "
            f"go on with zero=stage{checkpoint.state.zero_stage}, or remove the directory to start anew"
        )


def to_universal(checkpoint: Checkpoint, workers: int) -> Path:
    """The checkpoint in DeepSpeed's universal form, which any world size of the same stage can load. Returns its directory."""
    target = checkpoint.path.with_name(f"universal-{checkpoint.path.name}")
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(checkpoint.path), "--output_folder", str(target)]
    command += ["--num_extract_workers", str(workers), "--num_merge_workers", str(workers)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""},
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise StoreError(f"{checkpoint.path}: could not be converted for another number of ranks: {' '.join(last)}")
    return target
