"""A copy of qup whose stages are recordings, to try launchers on real processes without the models' cost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from qup.pipeline.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]

PLAIN = '''"""Recording."""
from qup.stages.recording import behave


def run(view, inputs, ctx):
    return behave("{kind}", ctx)
'''

SHARDED = '''"""Recording, in shards."""
import pyarrow as pa

from qup.stages.recording import behave

SHARDS = 4


def plan(view, inputs, ctx):
    return SHARDS


def shard(view, inputs, ctx, indices):
    for index in indices:
        ctx.save_shard(index, pa.Table.from_arrays([pa.nulls(1, pa.int64())], ["shard"]))
        ctx.check()


def merge(view, inputs, ctx):
    assert all(ctx.has_shard(index) for index in range(SHARDS))
    return behave("{kind}", ctx)
'''

CELLS = '''"""The recordings' table."""


def cells_table(study, store):
    rows = []
    for cell in study.cells:
        key = cell.stages.get("evaluate")
        artifact = store.get("evaluate", key)
        rows.append({"cell": cell.label, "label": cell.label, "total": artifact.metrics["total"] if artifact else None})
    return rows


def write_cells_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row['label']},{row['total']}\\n" for row in rows), encoding="utf-8")


def show_cells(rows, console):
    console.print(f"{len(rows)} rows")
'''

REPORT = '''"""The recordings' report."""
from contextlib import nullcontext as writing


def build(folder, store, out=None):
    path = (out or folder / "report") / "report.html"
    path.write_text("report")
    return path


def said(out):
    return []
'''

SCRIPT = '''"""Launches the cells that a test pickled as JSON."""
import json
import sys

from qup.config.fingerprint import build
from qup.config.schema import Config
from qup.errors import QupError
from qup.launch.launch import launch

cells = [build(Config, cell) for cell in json.load(open(sys.argv[1]))]
try:
    sys.exit(launch(cells, sys.argv[2]).status)
except QupError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
'''


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Overlay:
    """The copy, a control folder, and a way to run things with it."""

    def __init__(self, root: Path) -> None:
        self.root, self.control = root / "code", root / "control"
        self.control.mkdir(parents=True)
        self.work = root / "work"
        self.work.mkdir()
        for name in ("qup", "conf", "hydra_plugins"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.root / name)
        stages = self.root / "qup" / "stages"
        shutil.copy(ROOT / "tests" / "helpers" / "recording_stage.py", stages / "recording.py")
        for kind in KINDS.values():
            (stages / f"{kind.name}.py").write_text((SHARDED if kind.sharded else PLAIN).format(kind=kind.name))
        (self.root / "qup" / "analysis" / "results" / "cells.py").write_text(CELLS)
        (self.root / "qup" / "analysis" / "report.py").write_text(REPORT)
        (self.root / "launch_cells.py").write_text(SCRIPT)
        self._light_zygote()
        self.env: dict[str, str] = {}

    def _light_zygote(self) -> None:
        """Recordings need none of the heavy libraries that stages do."""
        path = self.root / "qup" / "launch" / "local" / "zygote.py"
        text = path.read_text()
        start, end = text.index("PRELOAD = ("), text.index(")\n", text.index("PRELOAD = ("))
        text = text[:start] + 'PRELOAD = ("pyarrow.parquet", "qup.launch.process"' + text[end:]
        start, end = text.index("WHEN_IDLE = ("), text.index(")\n", text.index("WHEN_IDLE = ("))
        path.write_text(text[:start] + "WHEN_IDLE = (" + text[end:])

    @property
    def store(self) -> Path:
        return self.work / "store"

    def environment(self) -> dict[str, str]:
        env = dict(os.environ, PYTHONPATH=str(self.root), PYTHONSAFEPATH="1", QUP_TEST_CONTROL=str(self.control), **self.env)
        env.pop("SLURM_JOB_ID", None)
        return env

    def order(self, kind: str, **orders: Any) -> None:
        """What the next runs of a stage kind do."""
        (self.control / f"{kind}.json").write_text(json.dumps(orders))

    def go(self, kind: str) -> None:
        """Lets the runs of a kind that wait go on."""
        (self.control / f"{kind}.go").touch()

    def forget(self, kind: str) -> None:
        (self.control / f"{kind}.json").unlink(missing_ok=True)

    def runs(self, event: str = "began") -> list[dict[str, Any]]:
        """What was noted."""
        path = self.control / "runs.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def counts(self, event: str = "began") -> Counter[str]:
        """What was noted, counted by kind."""
        return Counter(entry["kind"] for entry in self.runs(event))

    def await_run(self, kind: str, seconds: float = 60) -> None:
        """Returns once a stage of this kind has begun."""
        deadline = time.monotonic() + seconds
        while not [entry for entry in self.runs() if entry["kind"] == kind]:
            assert time.monotonic() < deadline, f"no {kind} began within {seconds:g} s"
            time.sleep(0.1)

    def popen(self, cells: list[Any], where: str, **options: Any) -> subprocess.Popen[str]:
        """A launch as a process of its own."""
        from qup.config.fingerprint import plain

        path = self.work / f"cells-{len(list(self.work.glob('cells-*')))}.json"
        path.write_text(json.dumps([plain(cell) for cell in cells]))
        return subprocess.Popen(
            [sys.executable, str(self.root / "launch_cells.py"), str(path), where],
            cwd=self.work,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # a test session started in the background has Ctrl-C ignored, and children inherit that
            preexec_fn=_heed_interrupts,
            **options,
        )

    def wrap(self, command: str, script: str) -> None:
        """What every later call of a command does instead: shell lines, in which $REAL is the real one and $N the number of this call."""
        folder = self.control / "bin"
        folder.mkdir(exist_ok=True)
        calls = folder / f".{command}.calls"
        lines = [
            "#!/bin/bash",
            f"REAL={shutil.which(command)}",
            f'printf "%s\\n" "$*" >> {calls}',
            f"N=$(wc -l < {calls})",
            script,
            'exec $REAL "$@"',
        ]
        (folder / command).write_text("\n".join(lines) + "\n")
        (folder / command).chmod(0o755)
        self.env["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def calls(self, command: str) -> list[str]:
        """The arguments of each call of a wrapped command."""
        path = self.control / "bin" / f".{command}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def launch(self, cells: list[Any], where: str = "local", timeout: float = 300) -> tuple[int, str]:
        """Exit status and output of a launch."""
        process = self.popen(cells, where)
        out, _ = process.communicate(timeout=timeout)
        return process.returncode, out

    def qup(self, *args: str, timeout: float = 300) -> tuple[int, str]:
        """The console command."""
        done = subprocess.run(
            [sys.executable, "-m", "qup", *args], cwd=self.work, env=self.environment(), capture_output=True, text=True, timeout=timeout
        )
        return done.returncode, done.stdout + done.stderr
