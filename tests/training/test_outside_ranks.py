"""Ranks that srun or torchrun started."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.world import LONG, Workshop, await_, end, forked, same


def tasks_from_outside(work: Workshop, port: int, **settings: Any) -> list[int]:
    """Two processes, each told its place as srun or torchrun tell it; the second writes elsewhere."""
    children = []
    for rank in range(2):
        env = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

        def body(rank: int = rank, env: dict[str, str] = env) -> int:
            os.environ.update(env, GLOO_SOCKET_IFNAME="lo")
            work.out = work.root / f"out-{rank}"
            work.out.mkdir(exist_ok=True)
            metrics = work.train(env=env, **settings)
            (work.root / f"metrics-{rank}.json").write_text(json.dumps(metrics))
            return 0

        children.append(forked(body, work.root / f"error-{rank}"))
    return children


def test_ranks_started_by_srun_or_torchrun(shop: Callable[..., Workshop]) -> None:
    here, outside = shop("here"), shop("outside")
    here.train(tasks=2)
    assert [end(pid) for pid in tasks_from_outside(outside, free_port())] == [0, 0]
    outside.out = outside.root / "out-0"
    assert same(outside.weights(), here.weights())
    assert not list((outside.root / "out-1").iterdir())
    assert json.loads((outside.root / "metrics-1.json").read_text())["steps"] == 5


def test_a_task_from_outside_says_which_other_rank_died(workshop: Workshop) -> None:
    children = tasks_from_outside(workshop, free_port(), **LONG)
    await_(lambda: len((workshop.work / "steps.jsonl").read_text()) > 0 if (workshop.work / "steps.jsonl").exists() else False)
    os.kill(int(next(workshop.work.glob("ranks-1/*/rank-1.pid")).read_text()), signal.SIGKILL)
    assert [end(pid) for pid in children] == [1, 1]
    assert "rank 1 of 2 was killed by SIGKILL" in (workshop.root / "error-1").read_text()
    assert "rank 1 of 2 ended without a word" in (workshop.root / "error-0").read_text()


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("gpus", "tasks", "env", "expected"),
    [
        ("0", 1, {}, (1, 0, 1, 0)),
        ("0", 2, {}, (2, 0, 2, 0)),
        ("a100:4", 1, {}, (4, 0, 4, 0)),
        ("8", 8, {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}, (16, 9, 1, 1)),
        ("8", 1, {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, (16, 8, 8, 0)),
        ("8", 1, {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}, (8, 3, 1, 3)),
    ],
)
def test_how_many_ranks_and_which_are_here(tmp_path: Path, gpus: str, tasks: int, env: dict[str, str], expected: tuple[int, ...]) -> None:
    from qup.config.schema import Resources
    from qup.pipeline.context import Context
    from qup.training.launch import placement

    found = placement(Context(tmp_path, tmp_path, tmp_path, Resources(gpus=gpus, tasks=tasks)), env)
    assert (found.size, found.first, found.here, found.local) == expected
