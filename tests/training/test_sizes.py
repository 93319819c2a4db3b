from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from qup.config.schema import Zero
from qup.errors import InputError
from qup.training.batches import Layouter, Tensors, lay_out, tensors_of
from qup.training.engine import Engine
from qup.training.metrics import StepLog, attention_width, model_flops, read_steps, summarise, token_mean
from qup.training.ranks import World, process_group
from qup.training.rehearsal import rows_that_fit
from qup.training.sizes import CPU_ROW, CPU_TOKENS, cpu_rows, cuda_rows, longest_row, memory_bytes, row_cost
from qup.training.student import prepare
from tests.helpers.tiny import tiny_config, tiny_model
from tests.training.reference import batch, error_of, gradients, reference, trainer_of
from tests.training.world import TRAINER


def test_rows_on_a_gpu_follow_from_two_measurements() -> None:
    assert cuda_rows(lambda rows: 10 + 7 * rows, 100) == 11
    assert cuda_rows(lambda rows: 95 * rows, 100) == 1
    assert cuda_rows(lambda rows: 50 + 30 * rows, 100) == 1


def test_nothing_is_tried_that_would_not_fit() -> None:
    for base, a_row in ((10, 7), (60, 20), (0, 50), (85, 3), (5, 46)):
        tried: list[float] = []

        def peak(rows: float, base: int = base, a_row: int = a_row, tried: list[float] = tried) -> int:
            tried.append(base + a_row * rows)
            return int(tried[-1])

        cuda_rows(peak, 100)
        assert max(tried) <= 90


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_moments_are_reckoned_with_before_they_are_there(stage: int) -> None:
    trainer, examples = trainer_of("sft"), batch()
    with process_group(World()):
        engine = Engine(prepare(tiny_model(), trainer, Zero(stage)), trainer, Zero(stage), World())
        to_come = engine.bytes_to_come
        held = engine.optimizer if stage == 0 else engine.optimizer.optimizer
        assert not any(torch.is_tensor(value) and value.numel() > 1 for state in held.state.values() for value in state.values())
        step = lay_out(examples, Layouter(1, 4, True, 48))
        engine.step(step, [one.mass for one in examples], tensors_of(examples, step, 0, 0), 1e-3)
        moments = sum(state[name].nbytes for state in held.state.values() for name in ("exp_avg", "exp_avg_sq"))
        assert to_come <= moments <= 1.05 * to_come
        assert replace_zero(engine, 3, True).bytes_to_come == 0
        engine.close()


def replace_zero(engine: Engine, stage: int, offload: bool) -> Engine:
    """The same engine, told another ZeRO setting."""
    other = copy.copy(engine)
    other.zero = Zero(stage, offload)
    return other


class Card:
    """Stands for a GPU whose memory grows with the tokens that went through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: int, base: int, a_token: int) -> None:
        self.device, self.bytes_to_come, self.total = torch.device("cpu"), 1000, total
        self.base, self.a_token, self.tokens = base, a_token, [0]
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: base + a_token * self.tokens[-1])
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=total))

    def rehearse(self, tensors: Tensors) -> None:
        self.tokens.append(tensors.input_ids.numel())
        if self.base + self.a_token * self.tokens[-1] > self.total:
            raise torch.OutOfMemoryError("no more")


def test_rows_are_rehearsed_at_full_length_and_leave_room_for_the_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, total=11_000, base=200, a_token=10)
    rows = rows_that_fit(card, 64, 60, 0, packing=True, flat=False, most=lambda number: number)  # type: ignore[arg-type]
    assert card.tokens == [0, 32, 32, 64, 128]
    assert rows == int((0.9 * 10_000 - 200) / 640) == 13


def test_the_rank_with_least_room_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, total=11_000, base=200, a_token=10)
    least = 6_000
    rows = rows_that_fit(
        card,  # type: ignore[arg-type]
        64,
        60,
        0,
        packing=False,
        flat=True,
        most=lambda number: max(number, -least) if number < 0 else number,
    )  # type: ignore[arg-type]
    assert rows == int((0.9 * 5_000 - 200) / 640) == 6


def test_a_row_that_does_not_fit_is_an_error_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, total=600, base=200, a_token=10)
    with pytest.raises(InputError, match=r"trainer.micro_batch=auto: not even one row of 64 tokens fits .* zero=stage3"):
        rows_that_fit(card, 64, 60, 0, packing=True, flat=False, most=lambda number: number)  # type: ignore[arg-type]


def test_rows_measured_fit() -> None:
    for base, a_row in ((10, 7), (0, 9), (40, 13)):
        rows = cuda_rows(lambda n, base=base, a_row=a_row: base + a_row * n, 100)
        assert base + a_row * rows <= 90 < base + a_row * (rows + 1)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_measuring_leaves_no_trace_in_the_gradient(stage: int) -> None:
    model, trainer, examples = tiny_model(scale=0.3), trainer_of("dft"), batch()
    _, expected = reference(model, "dft")
    with process_group(World()):
        engine = Engine(prepare(model, trainer, Zero(stage)), trainer, Zero(stage), World())
        step = lay_out(examples, Layouter(1, 2, True, 48))
        engine.rehearse(next(tensors_of(examples, step, 0, 0)))
        engine.step(step, [one.mass for one in examples], tensors_of(examples, step, 0, 0), 1e-3)
        assert error_of(gradients(engine), expected) < 1e-5
        engine.close()


def test_rows_on_cpu_are_bounded_by_memory_and_tokens() -> None:
    small, large = tiny_config(), tiny_config(hidden_size=2048, num_hidden_layers=30)
    assert cpu_rows(small, 30_000, 512, 4, memory_bytes("2G")) == CPU_TOKENS // 512
    assert cpu_rows(large, 10**6, 512, 4, memory_bytes("2G")) == 1
    assert cpu_rows(small, 10**9, 512, 4, memory_bytes("2G")) == 1


def test_memory_settings() -> None:
    assert [memory_bytes(text) for text in ("2G", "512M", "0.5T", "300")] == [2 << 30, 512 << 20, 1 << 39, 300 << 20]


def test_the_longest_row() -> None:
    examples = batch()
    assert longest_row(TRAINER, examples, cuda=False) == CPU_ROW
    assert longest_row(replace(TRAINER, packing=False), examples, cuda=False) == 40
    assert longest_row(replace(TRAINER, row_tokens=64), examples, cuda=False) == 64
    with pytest.raises(InputError, match=r"trainer.row_tokens=32: the longest example has 40 tokens"):
        longest_row(replace(TRAINER, row_tokens=32), examples, cuda=False)


def test_pairs_cost_nothing_where_attention_knows_the_borders() -> None:
    assert row_cost(tiny_config(), 1000, flat=True).quadratic == 0
    assert row_cost(tiny_config(), 1000, flat=False).quadratic > 0


def test_flops_of_a_step() -> None:
    assert model_flops(1000, 100, 0, 8, [10, 20], 12) == 6 * (1000 * 30 + 100 * 12)
    assert model_flops(1000, 100, 2, 8, [10, 20], 12) == 6 * (1000 * 30 + 100 * 12) + 6 * 2 * 8 * (100 + 400)
    assert model_flops(1000, 100, 0, 8, [10, 20], 12, frozen=True) == 4 * (1000 * 30 + 100 * 12)


def test_attention_is_as_wide_as_its_heads_together() -> None:
    assert attention_width(tiny_config(num_attention_heads=4, head_dim=16)) == 64
    assert attention_width(tiny_config(num_attention_heads=4, head_dim=None)) == 32


def test_means_are_weighted_by_tokens_and_leave_skipped_steps_out() -> None:
    steps = [{"nll": 1.0, "targets": 10, "skipped": False}, {"nll": 4.0, "targets": 30, "skipped": False}]
    assert token_mean(steps, "nll") == 3.25
    assert token_mean([*steps, {"nll": None, "targets": 99, "skipped": True}], "nll") == 3.25


def test_first_and_last_are_five_percent_of_the_steps() -> None:
    line = {"targets": 1, "tokens": 2, "computed": 4, "rows": 1, "skipped": False, "p": 0.5}
    found = summarise([{**line, "nll": float(i)} for i in range(40)])
    assert (found["train_nll_first"], found["train_nll_last"], found["useful_tokens"]) == (0.5, 38.5, 0.5)


def test_the_log_is_cut_at_the_checkpoint(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "steps.jsonl"
    log = StepLog(path, 0)
    for step in (1, 2, 3):
        log.append({"step": step, "loss": float("nan")})
    log.close()
    path.write_text(path.read_text() + '{"step": 4, "lo')
    StepLog(path, 2).close()
    assert read_steps(path) == [{"step": 1, "loss": None}, {"step": 2, "loss": None}]
