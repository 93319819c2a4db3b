from __future__ import annotations

from dataclasses import replace

import pytest

from qup.config.schema import Zero
from qup.errors import InputError
from qup.training.batches import Layouter, lay_out, tensors_of
from qup.training.engine import Engine
from qup.training.metrics import StepLog, model_flops, read_steps, summarise, token_mean
from qup.training.ranks import World, process_group
from qup.training.sizes import CPU_ROW, CPU_TOKENS, cpu_rows, cuda_rows, longest_row, memory_bytes, row_cost
from qup.training.student import prepare
from tests.helpers.tiny import tiny_config, tiny_model
from tests.training.reference import batch, error_of, gradients, reference, trainer_of
from tests.training.world import TRAINER


def test_rows_on_a_gpu_follow_from_two_measurements() -> None:
    assert cuda_rows(lambda rows: 10 + 7 * rows, 100) == 11
    assert cuda_rows(lambda rows: 95 * rows, 100) == 1
    assert cuda_rows(lambda rows: 50 + 30 * rows, 100) == 1


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
        engine.step(step, [one.n_targets for one in examples], tensors_of(examples, step, 0, 0), 1e-3)
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
