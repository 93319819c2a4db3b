"""Streams, jobs and contexts for training tests."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from qup.config.schema import Model, Resources, Tracking, Trainer, Zero
from qup.config.views import TrainView
from qup.files import write_table
from qup.pipeline.context import Context
from qup.records import STREAM
from qup.training.job import Job
from qup.training.launch import train
from qup.training.worker import die_with_parent

TRAINER = Trainer(objective="sft", dtype="float32", lr=1e-3, batch_size=8, seed=0, max_length=64, warmup_ratio=0.0)


def stream_table(rows: list[tuple[str, str, str]]) -> pa.Table:
    """(problem_id, question, text) as a stream."""
    filled = [
        {"problem_id": name, "question": question, "text": text, "pool": "student", "candidate": 0, "weight": 1.0}
        for name, question, text in rows
    ]
    return pa.Table.from_pylist([{column: row.get(column) for column in STREAM.names} for row in filled], schema=STREAM)


def some_rows(n: int, seed: int = 0, shortest: int = 3, longest: int = 40) -> list[tuple[str, str, str]]:
    draw = random.Random(seed)
    words = ["so", "the", "answer", "is", "we", "get", "then", "find", "total", "left", "step", ".", "=", "+"]
    rows = []
    for i in range(n):
        text = " ".join(draw.choice([*words, str(draw.randrange(50))]) for _ in range(draw.randint(shortest, longest)))
        rows.append((f"p{i}", f"find {draw.randrange(50)} + {draw.randrange(50)} ?", text))
    return rows


def write_stream(path: Path, n: int, **shape: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, stream_table(some_rows(n, **shape)))
    return path


class Workshop:
    """One stage run's folders. `train` runs it, as often as wanted, on what the last run left."""

    def __init__(self, root: Path, student: Path, stream: Path, template: str = "tokenizer", device: str = "cpu") -> None:
        self.root, self.student, self.stream, self.template, self.device = root, student, stream, template, device
        self.work, self.out = root / "work", root / "out"
        for folder in (self.work, self.out):
            folder.mkdir(parents=True, exist_ok=True)
        self.progress: list[tuple[float, float, str]] = []

    @property
    def checkpoints(self) -> Path:
        return self.work / "checkpoints"

    def view(self, zero: Zero = Zero(), model: dict[str, Any] | None = None, **trainer: Any) -> TrainView:  # noqa: B008
        student = Model(name="tiny", path=str(self.student), template=self.template, device=self.device, **(model or {}))
        return TrainView(student, replace(TRAINER, **trainer), zero, Tracking(), {"cell": "tiny/sft"})

    def train(
        self,
        *,
        zero: Zero = Zero(),  # noqa: B008
        tasks: int = 1,
        key: str = "key",
        stopping: Callable[[], bool] = lambda: False,
        stop_at: int | None = None,
        env: dict[str, str] | None = None,
        **trainer: Any,
    ) -> dict[str, Any]:
        """Runs the stage; `stop_at` asks it to stop once so many steps are done."""

        def progress(done: float, total: float, unit: str) -> None:
            self.progress.append((done, total, unit))

        def stop() -> bool:
            return stopping() or (stop_at is not None and bool(self.progress) and self.progress[-1][0] >= stop_at)

        ctx = Context(self.out, self.work, self.root, Resources(tasks=tasks, mem="2G"), key, progress=progress, stopping=stop)
        job = Job(self.view(zero, **trainer), self.stream, None, self.work, self.out, key, "2G", {"stream": "s1"})
        return train(job, ctx, env or {})

    def weights(self, name: str = "model") -> dict[str, Any]:
        from safetensors.torch import load_file

        return load_file(self.out / name / "model.safetensors")


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Bit for bit."""
    import torch

    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def furthest(left: dict[str, Any], right: dict[str, Any]) -> float:
    """Largest difference, relative to the tensor's norm."""
    return max(float((left[name] - right[name]).norm() / right[name].norm()) for name in right)


LONG = {"epochs": 400, "schedule": "constant"}
"""Far longer than any test lets it run."""


def forked(body: Callable[[], int], error: Path) -> int:
    """A process that ends with what `body` returns, or with 1 and its error in that file, and dies with this one; returns its id."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        gc.freeze()
        die_with_parent(parent)
        status = 1
        try:
            status = body()
        except BaseException as raised:
            error.write_text(f"{type(raised).__name__}: {raised}")
        finally:
            os._exit(status)
    return pid


def end(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def await_(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.002)
    return found
