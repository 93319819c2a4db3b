from __future__ import annotations

import json
import logging
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qup.config.schema import Lora, Zero
from qup.errors import InputError, Interrupted, StoreError
from qup.training.checkpoint import Checkpoints, State
from tests.training.world import Workshop, furthest, same

LOG = logging.getLogger("qup.test")


def lines(work: Workshop) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (work.work / "steps.jsonl").read_text().splitlines()]
    return [{name: entry[name] for name in ("step", "loss", "nll", "grad_norm", "lr")} for entry in entries]


@pytest.mark.parametrize("zero", [Zero(0), Zero(1), Zero(2), Zero(3), Zero(3, True)], ids=str)
def test_stopped_and_resumed_is_bit_for_bit_undisturbed(shop: Callable[..., Workshop], zero: Zero) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train(zero=zero, dropout=0.1)
    with pytest.raises(Interrupted, match="after step 2 of 5"):
        cut.train(zero=zero, dropout=0.1, stop_at=2)
    cut.progress.clear()
    cut.train(zero=zero, dropout=0.1)
    assert cut.progress[0][0] == 3
    assert same(cut.weights(), whole.weights())
    assert lines(cut) == lines(whole)


KINDS: dict[str, dict[str, Any]] = {"bfloat16": {"dtype": "bfloat16"}, "adapters": {"lora": Lora(4, 8.0, targets=["q_proj", "up_proj"])}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zero", [Zero(1), Zero(3)], ids=str)
def test_half_precision_and_adapters_stopped_and_resumed(shop: Callable[..., Workshop], zero: Zero, kind: str) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train(zero=zero, **KINDS[kind])
    with pytest.raises(Interrupted):
        cut.train(zero=zero, stop_at=2, **KINDS[kind])
    cut.train(zero=zero, **KINDS[kind])
    assert same(cut.weights(), whole.weights())


@pytest.mark.parametrize("step", range(5))
def test_stopped_at_any_step(shop: Callable[..., Workshop], step: int) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train()
    with pytest.raises(Interrupted):
        cut.train(stopping=lambda: len(cut.progress) >= step)
        raise Interrupted("the last step ends the run")
    cut.train()
    assert same(cut.weights(), whole.weights())
    assert [line["step"] for line in lines(cut)] == [1, 2, 3, 4, 5]


def test_steps_behind_the_checkpoint_are_not_logged_twice(workshop: Workshop) -> None:
    class Killed(Exception):
        pass

    def kill() -> bool:
        if len(workshop.progress) >= 3:
            raise Killed
        return False

    with pytest.raises(Killed):
        workshop.train(checkpoint_steps=2, stopping=kill)
    assert [line["step"] for line in lines(workshop)] == [1, 2, 3]
    with (workshop.work / "steps.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')
    workshop.train(checkpoint_steps=2)
    assert [line["step"] for line in lines(workshop)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("zero", [Zero(0), Zero(1), Zero(2), Zero(3)], ids=str)
@pytest.mark.parametrize("there_and_back", [(1, 2), (2, 1)], ids=str)
def test_resumed_on_another_number_of_ranks(shop: Callable[..., Workshop], zero: Zero, there_and_back: tuple[int, int]) -> None:
    before, after = there_and_back
    whole, cut = shop("whole"), shop("cut")
    whole.train(zero=zero)
    cut.train(zero=zero, tasks=before, checkpoint_steps=3)
    cut.progress.clear()
    cut.train(zero=zero, tasks=after)
    assert cut.progress[0][0] >= 4
    assert [line["step"] for line in lines(cut)] == [1, 2, 3, 4, 5]
    assert furthest(cut.weights(), whole.weights()) < 1e-5
    assert not list(cut.checkpoints.glob("universal-*"))


@pytest.mark.parametrize(("kind", "zero", "near"), [("bfloat16", Zero(1), 0.01), ("adapters", Zero(3), 1e-5)], ids=str)
def test_half_precision_and_adapters_resumed_on_fewer_ranks(shop: Callable[..., Workshop], kind: str, zero: Zero, near: float) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train(zero=zero, **KINDS[kind])
    cut.train(zero=zero, tasks=2, checkpoint_steps=3, **KINDS[kind])
    cut.progress.clear()
    cut.train(zero=zero, **KINDS[kind])
    assert cut.progress[0][0] >= 4
    weights, expected = ({name: tensor.float() for name, tensor in work.weights().items()} for work in (cut, whole))
    assert furthest(weights, expected) < near


def test_another_zero_stage_is_refused_with_the_way_out(workshop: Workshop) -> None:
    with pytest.raises(Interrupted):
        workshop.train(zero=Zero(1), stop_at=2)
    with pytest.raises(InputError, match=r"zero.stage=3: .* written under stage 1; go on with zero=stage1"):
        workshop.train(zero=Zero(3))


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    shop: Callable[..., Workshop], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train()
    with pytest.raises(Interrupted):
        cut.train(checkpoint_steps=2, stop_at=4)
    shard = next((cut.checkpoints / "step-00000004").glob("*optim_states.pt"))
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "missing":
        shard.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        shard.write_bytes(content)
    cut.progress.clear()
    cut.train()
    assert cut.progress[0][0] == 3
    assert "checkpoint of step 4 is damaged" in caplog.text
    assert same(cut.weights(), whole.weights())


def test_all_checkpoints_damaged_starts_anew(workshop: Workshop) -> None:
    with pytest.raises(Interrupted):
        workshop.train(stop_at=2)
    for shard in workshop.checkpoints.glob("step-*/*.pt"):
        shard.write_bytes(b"")
    workshop.progress.clear()
    workshop.train()
    assert workshop.progress[0][0] == 1


def test_half_written_checkpoints_are_not_seen(workshop: Workshop) -> None:
    with pytest.raises(Interrupted):
        workshop.train(stop_at=2)
    half = workshop.checkpoints / "step-00000003"
    half.mkdir()
    (half / "mp_rank_00_model_states.pt").write_bytes(b"torn")
    workshop.progress.clear()
    workshop.train()
    assert workshop.progress[0][0] == 3


def test_a_checkpoint_of_another_key_is_refused(workshop: Workshop) -> None:
    with pytest.raises(Interrupted):
        workshop.train(key="one", stop_at=2)
    with pytest.raises(StoreError, match="belongs to stage 'one', this is 'other'"):
        workshop.train(key="other")


def test_no_more_than_two_checkpoints_stay(workshop: Workshop) -> None:
    workshop.train(checkpoint_steps=1)
    assert sorted(path.name for path in workshop.checkpoints.glob("step-*")) == ["step-00000004", "step-00000005"]


def test_the_previous_checkpoint_stays_until_the_next_is_whole(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "key", LOG)
    for step in (1, 2, 3):
        path = checkpoints.path(step)
        path.mkdir()
        (path / "a.bin").write_bytes(b"x" * step)
        if step < 3:
            checkpoints.publish(State(step, "key", 1, 1, 1))
    assert [checkpoint.state.step for checkpoint in checkpoints.whole()] == [2, 1]


def test_what_was_converted_for_another_number_of_ranks_does_not_stay(tmp_path: Path) -> None:
    """A run killed between conversion and loading leaves it behind."""
    checkpoints = Checkpoints(tmp_path, "key", LOG)
    (tmp_path / "universal-step-00000001").mkdir()
    checkpoints.path(2).mkdir()
    checkpoints.publish(State(2, "key", 1, 1, 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002"]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond a size in bytes, as if its disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_full_while_saving_keeps_the_last_whole_one(shop: Callable[..., Workshop]) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train()
    with pytest.raises(Interrupted):
        cut.train(stop_at=2)
    with file_size_limit(100_000), pytest.raises(StoreError, match="checkpoint of step 3 could not be written") as told:
        cut.train(stopping=lambda: False, checkpoint_steps=3)
    assert "the one of step 2 is whole" in str(told.value)
    assert [path.name for path in cut.checkpoints.glob("step-*")] == ["step-00000002"]
    cut.train()
    assert same(cut.weights(), whole.weights())


def test_a_directory_in_use_is_refused(workshop: Workshop) -> None:
    checkpoints = Checkpoints(workshop.checkpoints, "key", LOG)
    with checkpoints.hold(), pytest.raises(StoreError, match="in use by process"), Checkpoints(workshop.checkpoints, "key", LOG).hold(0.2):
        pass
