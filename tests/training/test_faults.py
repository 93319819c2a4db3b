"""What a run survives, and what it says when it does not."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qup.config.schema import Zero
from qup.errors import Interrupted, QupError, StoreError
from tests.training.world import LONG, Workshop, await_, end, forked, same


def pid_of(work: Workshop, rank: int) -> int | None:
    for path in work.work.glob(f"ranks/*/rank-{rank}.pid"):
        return int(path.read_text())
    return None


def signal_once(work: Workshop, rank: int, number: int, after: int) -> Callable[[], bool]:
    """Sends a signal to a rank once so many steps are done; never asks to stop."""
    sent: list[int] = []

    def stopping() -> bool:
        if not sent and work.progress and work.progress[-1][0] >= after:
            pid = pid_of(work, rank)
            assert pid is not None
            sent.append(pid)
            os.kill(pid, number)
        return False

    return stopping


def start(work: Workshop, **settings: Any) -> int:
    """The stage in a process of its own; 0 done, 75 interrupted."""

    def body() -> int:
        try:
            work.train(**settings)
        except Interrupted:
            return 75
        return 0

    return forked(body, work.root / "error")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all_and_is_named(workshop: Workshop, rank: int) -> None:
    began = time.monotonic()
    with pytest.raises(QupError, match=rf"rank {rank} of 2 was killed by SIGKILL"):
        workshop.train(tasks=2, stopping=signal_once(workshop, rank, signal.SIGKILL, 1), **LONG)
    assert time.monotonic() - began < 60
    assert not alive(workshop)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_frozen_rank_ends_all_and_is_named(workshop: Workshop, rank: int) -> None:
    with pytest.raises(QupError, match=rf"rank {rank} of 2 said nothing for 3 s"):
        workshop.train(tasks=2, stopping=signal_once(workshop, rank, signal.SIGSTOP, 1), timeout_s=3.0, **LONG)
    assert not alive(workshop)


def alive(work: Workshop) -> list[int]:
    found = [pid_of(work, rank) for rank in (0, 1)]
    return [pid for pid in found if pid is not None and Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_to_one_rank_saves_and_ends_all(shop: Callable[..., Workshop], number: int) -> None:
    cut = shop("cut")
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        cut.train(tasks=2, stopping=signal_once(cut, 1, number, 2), **LONG)
    states = [json.loads(path.read_text()) for path in cut.checkpoints.glob("step-*/whole.json")]
    assert states and states[-1]["step"] >= 2


def test_signalled_again_and_again_is_bit_for_bit_undisturbed(shop: Callable[..., Workshop]) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train(tasks=2, epochs=80)
    for after, rank, number in ((1, 0, signal.SIGTERM), (30, 1, signal.SIGUSR2), (60, 1, signal.SIGTERM)):
        cut.progress.clear()
        with pytest.raises(Interrupted, match="its checkpoint is kept"):
            cut.train(tasks=2, epochs=80, stopping=signal_once(cut, rank, number, after))
    cut.train(tasks=2, epochs=80)
    assert same(cut.weights(), whole.weights())
    assert [json.loads(line)["step"] for line in (cut.out / "steps.jsonl").read_text().splitlines()] == list(range(1, 401))


def test_the_parent_is_asked_and_all_ranks_save(workshop: Workshop) -> None:
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        workshop.train(tasks=2, stop_at=2, **LONG)
    assert list(workshop.checkpoints.glob("step-*/whole.json"))


@pytest.mark.parametrize("zero", [Zero(1), Zero(3)], ids=str)
def test_all_killed_and_run_again_is_bit_for_bit_undisturbed(shop: Callable[..., Workshop], zero: Zero) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train(zero=zero, tasks=2, epochs=3, checkpoint_steps=2)
    pid = start(cut, zero=zero, tasks=2, epochs=3, checkpoint_steps=2)
    await_(lambda: list(cut.checkpoints.glob("step-*/whole.json")))
    os.kill(pid, signal.SIGKILL)
    end(pid)
    await_(lambda: not alive(cut), 5)
    cut.train(zero=zero, tasks=2, epochs=3, checkpoint_steps=2)
    assert same(cut.weights(), whole.weights())


def test_killed_while_a_checkpoint_is_written(shop: Callable[..., Workshop]) -> None:
    """Ten times over: killed the moment a directory without its marker is seen."""
    whole, cut = shop("whole"), shop("cut")
    whole.train(epochs=4)
    torn = 0
    for _ in range(10):
        known = {path.name for path in cut.checkpoints.glob("step-*/whole.json")}
        pid = start(cut, epochs=4, checkpoint_steps=1)
        await_(lambda pid=pid: _half_written(cut) or os.waitpid(pid, os.WNOHANG)[0])
        try:
            os.kill(pid, signal.SIGKILL)
            end(pid)
        except (ProcessLookupError, ChildProcessError):
            break
        torn += bool(_half_written(cut))
        assert len(known) <= 2
    assert torn >= 3
    cut.train(epochs=4)
    assert same(cut.weights(), whole.weights())
    steps = [json.loads(line)["step"] for line in (cut.out / "steps.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 21))


def test_a_rank_killed_in_the_middle_of_a_checkpoint_is_what_is_told(
    shop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others see a broken collective while they save, which is not what went wrong."""
    from qup.training.engine import Engine

    whole, cut = shop("whole"), shop("cut")
    whole.train(tasks=2)
    save = Engine.save

    def killed(self: Engine, root: Path, tag: str) -> None:
        if self.world.rank == 1 and tag.endswith("4"):
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, root, tag)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "save", killed)
        with pytest.raises(QupError, match="rank 1 of 2 was killed by SIGKILL"):
            cut.train(tasks=2, checkpoint_steps=2)
    assert [path.parent.name for path in cut.checkpoints.glob("step-*/whole.json")] == ["step-00000002"]
    cut.train(tasks=2)
    assert same(cut.weights(), whole.weights())


def _half_written(work: Workshop) -> list[Path]:
    return [path for path in work.checkpoints.glob("step-*") if not (path / "whole.json").exists()]


def test_two_runs_on_one_directory(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from qup.training.checkpoint import Checkpoints

    pid = start(workshop, checkpoint_steps=1, **LONG)
    await_(lambda: list(workshop.checkpoints.glob("step-*/whole.json")))
    whole = Checkpoints.hold
    monkeypatch.setattr(Checkpoints, "hold", lambda self: whole(self, 0.3))
    try:
        with pytest.raises(StoreError, match=f"in use by process {pid}"):
            workshop.train(**LONG)
    finally:
        os.kill(pid, signal.SIGKILL)
        end(pid)


def test_a_second_run_of_several_ranks_leaves_the_first_alone(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from qup.training.checkpoint import Checkpoints

    pid = start(workshop, tasks=2, checkpoint_steps=1, **LONG)
    await_(lambda: list(workshop.checkpoints.glob("step-*/whole.json")))
    first = pid_of(workshop, 0)
    whole = Checkpoints.hold
    monkeypatch.setattr(Checkpoints, "hold", lambda self: whole(self, 0.3))
    try:
        with pytest.raises(StoreError, match=f"in use by process {first}"):
            workshop.train(tasks=2, **LONG)
        done = max(path.name for path in workshop.checkpoints.glob("step-*"))
        await_(lambda: max(path.name for path in workshop.checkpoints.glob("step-*")) > done)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        end(pid)
