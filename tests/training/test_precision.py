"""Which precision AdamW works in: float32 beside bfloat16 weights, or bfloat16 throughout as the DFT recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from qup.config.schema import Zero
from qup.training.batches import Layouter, lay_out, tensors_of
from qup.training.engine import Engine, deepspeed_config
from qup.training.ranks import World, process_group
from qup.training.student import prepare
from tests.helpers.tiny import tiny_model
from tests.training.reference import batch, token_losses, trainer_of

STEPS, LR = 4, 3e-3


@pytest.fixture(scope="module")
def group() -> Iterator[World]:
    world = World()
    with process_group(world):
        yield world


def trained(world: World, master: str, stage: int) -> tuple[dict[str, torch.Tensor], set[torch.dtype]]:
    """Weights after STEPS steps, and the types of the moments."""
    trainer = replace(trainer_of("sft"), dtype="bfloat16", master=master, weight_decay=0.0)
    model = prepare(tiny_model(scale=0.3).bfloat16(), trainer, Zero(stage))
    engine = Engine(model, trainer, Zero(stage), world)
    examples = batch()
    step = lay_out(examples, Layouter(1, 16, False, 48))
    for _ in range(STEPS):
        engine.step(step, [example.mass for example in examples], tensors_of(examples, step, 0, 0), LR)
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {name.removeprefix("causal."): safe_get_full_fp32_param(p).clone() for name, p in engine.model.named_parameters()}
    inner = engine.optimizer.optimizer  # type: ignore[attr-defined]
    kinds = {state[name].dtype for state in inner.state.values() for name in ("exp_avg", "exp_avg_sq")}
    engine.close()
    return weights, kinds


def plain(start: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The recipe's way: a bfloat16 model under torch's AdamW."""
    model = copy.deepcopy(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.cat([token_losses(model, example, "sft") for example in batch()]).mean().backward()
        optimizer.step()
    return {name: parameter.detach().float() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bfloat16_masters_are_the_recipe_s_training_and_float32_masters_are_another(group: World, stage: int) -> None:
    start = tiny_model(scale=0.3).bfloat16()
    expected = plain(start)
    first = {name: parameter.detach().float() for name, parameter in start.named_parameters()}
    (half, half_kinds), (full, full_kinds) = trained(group, "bfloat16", stage), trained(group, "float32", stage)
    assert half_kinds == {torch.bfloat16} and full_kinds == {torch.float32}

    def distance(found: dict[str, torch.Tensor]) -> float:
        return sum(float((found[name] - expected[name]).square().sum()) for name in expected) ** 0.5

    moved = sum(float((first[name] - expected[name]).square().sum()) for name in expected) ** 0.5
    assert all(torch.equal(weight, weight.bfloat16().float()) for weight in half.values())
    assert not all(torch.equal(weight, weight.bfloat16().float()) for weight in full.values())
    assert distance(half) < 0.1 * moved < distance(full)


def test_gradients_overlap_with_computing_on_gpus_where_gradients_are_cut() -> None:
    trainer = trainer_of("sft")
    on = {stage: deepspeed_config(trainer, Zero(stage), cuda=True)["zero_optimization"]["overlap_comm"] for stage in range(4)}
    assert on == {0: False, 1: False, 2: True, 3: True}
    assert not deepspeed_config(trainer, Zero(3, overlap=False), cuda=True)["zero_optimization"]["overlap_comm"]
    assert not deepspeed_config(trainer, Zero(3), cuda=False)["zero_optimization"]["overlap_comm"]
