"""The engine's gradients on a GPU against the plain reference, and what changes nothing in them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from qup.config.schema import Trainer, Zero
from qup.training.attention import FLAT, TORCH_VARLEN, use_attention
from qup.training.batches import Layouter, lay_out, tensors_of
from qup.training.engine import Engine
from qup.training.examples import Example
from qup.training.ranks import World
from qup.training.rehearsal import rows_that_fit
from qup.training.student import prepare
from tests.helpers.tiny import tiny_model
from tests.training.reference import STAGES, batch, error_of, gradients, one_step, reference, trainer_of
from tests.training.test_engine import ACCUMULATION

NEAR = 2e-5
"""Of a gradient, relative to its norm: float32 rounding in another order of sums."""


def step_of(model: Any, trainer: Trainer, zero: Zero, group: World, layout: str = "packed-2", **settings: Any) -> tuple[Any, Any]:
    packing, micro_batch, turns = ACCUMULATION[layout]
    return one_step(model, trainer, zero, group, micro_batch, packing, turns=turns, **settings)


@pytest.mark.parametrize("objective", ["sft", "dft"])
@pytest.mark.parametrize("stage", STAGES)
def test_packed_and_padded_gradients_are_the_plain_ones(group: World, stage: str, objective: str) -> None:
    model = tiny_model(tie_word_embeddings=objective == "dft").to(group.device)
    loss, expected = reference(model, objective)
    for layout in ("packed-1", "packed-4", "padded-2"):
        result, found = step_of(model, trainer_of(objective), STAGES[stage], group, layout)
        assert result.loss == pytest.approx(loss, rel=1e-5), layout
        assert error_of(on(group, found), expected) < NEAR, layout


def on(group: World, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Offloaded moments lie in CPU memory."""
    return {name: tensor.to(group.device) for name, tensor in found.items()}


@pytest.mark.parametrize("objective", ["sft", "dft"])
def test_examples_are_weighted(group: World, objective: str) -> None:
    model = tiny_model().to(group.device)
    loss, expected = reference(model, objective, [batch(weighted=True)])
    result, found = step_of(model, trainer_of(objective), Zero(1), group, weighted=True)
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert error_of(found, expected) < NEAR


@pytest.mark.parametrize("packing", [True, False])
def test_rows_behind_each_other_give_the_same_gradient(group: World, packing: bool) -> None:
    model = tiny_model().to(group.device)
    _, expected = reference(model, "dft")
    _, found = one_step(model, trainer_of("dft"), Zero(1), group, 2, packing, flat=True)
    assert error_of(found, expected) < NEAR


@pytest.mark.parametrize("stage", ["stage1", "stage3"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_kernel_of_variable_length_gives_the_gradient_of_sdpa(card: torch.device, group: World, architecture: str, stage: str) -> None:
    """In bfloat16, as near as sdpa's own: examples of one row are kept apart, and heads share keys."""
    model = tiny_model(architecture, hidden_size=64, head_dim=16, intermediate_size=128).to(group.device)
    loss, expected = reference(model, "dft")
    errors = {}
    for kernel in ("sdpa", TORCH_VARLEN):
        trainer, half = trainer_of("dft", dtype="bfloat16", attention=kernel), copy.deepcopy(model).bfloat16()
        assert use_attention(half, trainer, cuda=True) == kernel
        result, found = step_of(half, trainer, STAGES[stage], group, flat=kernel in FLAT)
        assert result.loss == pytest.approx(loss, rel=2e-2), kernel
        errors[kernel] = error_of(found, expected)
    assert errors[TORCH_VARLEN] < max(1.5 * errors["sdpa"], 1e-3), errors


@pytest.mark.parametrize("stage", ["stage0", "stage2", "stage3"])
def test_activation_checkpointing_changes_no_gradient(group: World, stage: str) -> None:
    model = tiny_model().to(group.device)
    _, expected = reference(model, "sft")
    _, found = step_of(model, trainer_of("sft", activation_checkpointing=True), STAGES[stage], group)
    assert error_of(found, expected) < NEAR


@pytest.mark.parametrize("stage", ["stage1", "stage3"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_liger_kernels_give_the_same_gradient(card: torch.device, liger: None, group: World, architecture: str, stage: str) -> None:
    model = tiny_model(architecture, hidden_size=64, head_dim=16, intermediate_size=128).to(group.device)
    loss, expected = reference(model, "sft")
    result, found = step_of(model, trainer_of("sft", liger=True), STAGES[stage], group)
    assert result.loss == pytest.approx(loss, rel=1e-4)
    assert error_of(found, expected) < 1e-3


def test_a_gradient_that_is_not_finite_changes_nothing(group: World) -> None:
    from qup.training.export import whole_weights

    trainer, examples = trainer_of("sft"), batch()
    engine = Engine(prepare(tiny_model(), trainer, Zero(2)), trainer, Zero(2), group)
    step = lay_out(examples, Layouter(1, 2, True, 64))
    masses = [example.mass for example in examples]
    engine.step(step, masses, tensors_of(examples, step, 0, 0), 1e-3)
    before = {name: tensor.clone() for name, tensor in whole_weights(engine, None).items()}  # type: ignore[union-attr]
    poison = engine.model.causal.get_output_embeddings().register_forward_pre_hook(lambda module, args: (args[0] * float("nan"), *args[1:]))
    assert engine.step(step, masses, tensors_of(examples, step, 0, 0), 1e-3).skipped
    poison.remove()
    after = whole_weights(engine, None)
    assert all(torch.equal(before[name], after[name]) for name in before)  # type: ignore[index]
    assert not engine.step(step, masses, tensors_of(examples, step, 0, 0), 1e-3).skipped
    engine.close()


@pytest.mark.parametrize("stage", ["stage0", "stage1", "stage3"])
def test_measuring_leaves_no_trace_in_the_gradient(card: torch.device, group: World, stage: str) -> None:
    model, trainer, examples = tiny_model().to(group.device), trainer_of("dft"), batch()
    _, expected = reference(model, "dft")
    engine = Engine(prepare(model, trainer, STAGES[stage]), trainer, STAGES[stage], group)
    assert rows_that_fit(engine, 48, 60, 0, packing=True, flat=False, most=lambda number: number) == 256
    step = lay_out(examples, Layouter(1, 2, True, 48))
    engine.step(step, [one.mass for one in examples], tensors_of(examples, step, 0, 0), 1e-3)
    assert error_of(gradients(engine), expected) < NEAR
    engine.close()


@pytest.mark.parametrize("stage", ["stage1", "stage3"])
def test_the_rows_found_fill_the_memory_and_stay_within_it(
    card: torch.device, group: World, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """On a card that is said to have 3 GiB, so that few rows fit: a step of so many takes most of them and no more."""
    total, length = 3 << 30, 2048
    real = torch.cuda.get_device_properties(card)

    class Small:
        total_memory = total

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Small())
    trainer, zero = trainer_of("sft", max_length=length), STAGES[stage]
    model = tiny_model(hidden_size=256, intermediate_size=512, num_hidden_layers=4, head_dim=64, max_position_embeddings=length)
    engine = Engine(prepare(model, trainer, zero), trainer, zero, group)
    rows = rows_that_fit(engine, length, 60, 0, packing=True, flat=False, most=lambda number: number)
    assert 1 < rows < 256
    half = Example(0, "p", (torch.arange(length // 2) % 60).int().numpy(), 1, False)
    examples = [half] * (2 * rows)
    step = lay_out(examples, Layouter(1, rows, True, length, fixed=True))
    assert len(step.micro_batches) == 1
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        engine.step(step, [one.mass for one in examples], tensors_of(examples, step, 0, 0), 1e-3)
    assert 0.5 * total < torch.cuda.max_memory_allocated() < total
    engine.close()
