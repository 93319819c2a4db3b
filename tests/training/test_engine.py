"""Gradients of the engine against the plain reference, on one rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from qup.config.schema import Zero
from qup.training.batches import Layouter, lay_out, tensors_of
from qup.training.engine import Engine
from qup.training.ranks import World, process_group
from qup.training.student import prepare
from tests.helpers.tiny import tiny_model
from tests.training.reference import STAGES, batch, error_of, gradients, one_step, reference, trainer_of

ACCUMULATION = {
    "packed-1": (True, 16, 1),
    "packed-2": (True, 2, 2),
    "packed-4": (True, 1, 4),
    "padded-1": (False, 8, 1),
    "padded-2": (False, 4, 2),
    "padded-4": (False, 2, 4),
}
"""Packing, rows a micro-batch, micro-batches a step on one rank; the batch packs into four rows of at most 48."""


@pytest.fixture(scope="module")
def group() -> Iterator[World]:
    world = World()
    with process_group(world):
        yield world


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("objective", ["sft", "dft"])
@pytest.mark.parametrize("stage", STAGES)
def test_gradients_on_one_rank(group: World, stage: str, objective: str, tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied, scale=0.3)
    loss, expected = reference(model, objective)
    trainer = trainer_of(objective)
    for name, (packing, micro_batch, turns) in ACCUMULATION.items():
        result, found = one_step(model, trainer, STAGES[stage], group, micro_batch, packing, turns=turns)
        assert abs(result.loss - loss) < 1e-5 * abs(loss), name
        assert error_of(found, expected) < 1e-5, name


@pytest.mark.parametrize("layout", ACCUMULATION)
@pytest.mark.parametrize("objective", ["sft", "dft"])
def test_example_weights_on_one_rank(group: World, objective: str, layout: str) -> None:
    """Σ wᵢ Σ loss / Σ wᵢ nᵢ, however the step is cut; one example has weight 0."""
    model = tiny_model(scale=0.3)
    loss, expected = reference(model, objective, [batch(weighted=True)])
    packing, micro_batch, turns = ACCUMULATION[layout]
    result, found = one_step(model, trainer_of(objective), Zero(1), group, micro_batch, packing, turns=turns, weighted=True)
    assert abs(result.loss - loss) < 1e-5 * abs(loss)
    assert error_of(found, expected) < 1e-5
    assert result.nll == pytest.approx(reference(model, "sft")[0], rel=1e-5), "the logged NLL is not weighted"


def test_matrices_are_cut_under_stage_3(group: World) -> None:
    """What the parity above is worth there: nothing but vectors stays whole between uses."""
    trainer, examples = trainer_of("dft"), batch()
    engine = Engine(prepare(tiny_model(scale=0.3), trainer, Zero(3)), trainer, Zero(3), group)
    step = lay_out(examples, Layouter(1, 2, True, 48))
    engine.step(step, [example.mass for example in examples], tensors_of(examples, step, 0, 0), 1e-3)
    whole = {name for name, parameter in engine.model.named_parameters() if parameter.numel() == parameter.ds_numel}  # type: ignore[attr-defined]
    assert whole == {name for name, parameter in engine.model.named_parameters() if len(parameter.ds_shape) == 1}  # type: ignore[attr-defined]
    engine.close()


@pytest.mark.parametrize("packing", [True, False])
def test_rows_behind_each_other_give_the_same_gradient(group: World, packing: bool) -> None:
    """The layout for variable-length attention; sdpa tells the examples apart by the same positions."""
    model = tiny_model(scale=0.3)
    loss, expected = reference(model, "dft")
    result, found = one_step(model, trainer_of("dft"), Zero(1), group, 2, packing, flat=True)
    assert abs(result.loss - loss) < 1e-5 * abs(loss)
    assert error_of(found, expected) < 1e-5


def test_clipping_and_norm(group: World) -> None:
    model = tiny_model(scale=0.3)
    _, expected = reference(model, "sft")
    norm = float(torch.stack([grad.norm() for grad in expected.values()]).norm())
    for zero in (Zero(0), Zero(1), Zero(3)):
        result, found = one_step(model, replace(trainer_of("sft"), clip=0.01), zero, group, 16, True)
        assert abs(result.grad_norm - norm) < 1e-4 * norm
        clipped = float(torch.stack([grad.norm() for grad in found.values()]).norm())
        assert abs(clipped - 0.01) < 1e-4


@pytest.mark.parametrize("stage", STAGES)
def test_a_gradient_that_is_not_finite_changes_nothing(group: World, stage: str) -> None:
    zero, trainer = STAGES[stage], trainer_of("sft")
    engine = Engine(prepare(tiny_model(scale=0.3), trainer, zero), trainer, zero, group)
    examples = batch()
    step = lay_out(examples, Layouter(1, 2, True, 64))
    masses = [example.mass for example in examples]
    engine.step(step, masses, tensors_of(examples, step, 0, 0), 1e-3)
    from qup.training.export import whole_weights

    before = {name: tensor.clone() for name, tensor in whole_weights(engine, None).items()}  # type: ignore[union-attr]
    moments = gradients(engine)
    poison = engine.model.causal.get_output_embeddings().register_forward_pre_hook(lambda module, args: (args[0] * float("nan"), *args[1:]))
    bad = engine.step(step, masses, tensors_of(examples, step, 0, 0), 1e-3)
    poison.remove()
    assert bad.skipped
    after = whole_weights(engine, None)
    assert all(torch.equal(before[name], after[name]) for name in before)  # type: ignore[index]
    assert all(torch.equal(moments[name], grad) for name, grad in gradients(engine).items())
    good = engine.step(step, masses, tensors_of(examples, step, 0, 0), 1e-3)
    assert not good.skipped and good.grad_norm > 0
    engine.close()
