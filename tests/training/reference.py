"""The engine's gradients and a plain reference: the definition, one example at a time, in float32."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from qup.config.schema import Trainer, Zero
from qup.training.batches import Layouter, lay_out, tensors_of
from qup.training.engine import Engine
from qup.training.examples import Example
from qup.training.ranks import World
from qup.training.student import prepare, probe
from tests.training.world import TRAINER

Gradients = dict[str, torch.Tensor]
STAGES = {"stage0": Zero(0), "stage1": Zero(1), "stage2": Zero(2), "stage3": Zero(3), "stage3_offload": Zero(3, True)}
BETA = 0.9


WEIGHTS = (1.5, 0.25, 0.0, 2.0, 0.5, 1.0, 3.0, 0.75)


def batch(times: int = 1, weighted: bool = False) -> list[Example]:
    """Eight examples so many times over, each of weight 1, or of WEIGHTS."""
    draw = np.random.default_rng(0)
    lengths = [14, 9, 40, 22, 31, 12, 27, 18] * times
    weights = WEIGHTS * times if weighted else (1.0,) * len(lengths)
    return [Example(i, f"p{i}", draw.integers(3, 60, n).astype(np.int32), 3 + i % 4, False, weights[i]) for i, n in enumerate(lengths)]


def token_losses(model: Any, example: Example, objective: str) -> torch.Tensor:
    ids = torch.from_numpy(example.ids).long()[None].to(model.device)
    logp_T = model(input_ids=ids).logits[0].float().log_softmax(-1)[:-1].gather(1, ids[0, 1:, None]).squeeze(1)
    logp_T = logp_T[example.n_prompt - 1 :]
    return -logp_T if objective == "sft" else -logp_T.exp().detach() * logp_T


def reference(model: Any, objective: str, groups: list[list[Example]] | None = None, times: int = 1) -> tuple[float, Gradients]:
    """Global token mean, weighted by example; with `groups` the mean over groups of each group's token mean."""
    model = copy.deepcopy(model)
    total: Any = 0.0
    for group in groups or [batch(times)]:
        losses = [token_losses(model, example, objective) for example in group]
        above = sum(example.weight * loss.sum() for example, loss in zip(group, losses, strict=True))
        below = sum(example.weight * len(loss) for example, loss in zip(group, losses, strict=True))
        total = total + above / below / len(groups or [1])
    total.backward()
    return float(total.detach()), {name: parameter.grad for name, parameter in model.named_parameters()}


def gradients(engine: Engine) -> Gradients:
    """What the optimizer was given, read out of its first moment after one step: m = (1 − β₁) g."""
    from deepspeed.utils import safe_get_full_optimizer_state

    found = {}
    for name, parameter in engine.model.named_parameters():
        if engine.zero.stage == 0:
            moment = engine.optimizer.state[parameter]["exp_avg"]
        else:
            moment = safe_get_full_optimizer_state(parameter, "exp_avg")
        found[name.removeprefix("causal.")] = moment / (1 - BETA)
    return found


def one_step(
    model: Any,
    trainer: Trainer,
    zero: Zero,
    world: World,
    micro_batch: int,
    packing: bool,
    *,
    times: int = 1,
    turns: int = 0,
    flat: bool = False,
    weighted: bool = False,
) -> tuple[Any, Gradients]:
    """A step on the batch by a fresh engine, inside a process group, in so many turns where `turns` says."""
    engine = Engine(prepare(copy.deepcopy(model), trainer, zero), trainer, zero, world)
    probe(engine.model, world.device)  # type: ignore[arg-type]
    examples = batch(times, weighted)
    step = lay_out(examples, Layouter(world.size, micro_batch, packing, 48, in_order=trainer.normalisation != "global"))
    assert turns in (0, len(step.micro_batches))
    result = engine.step(step, [example.mass for example in examples], tensors_of(examples, step, world.rank, 0, flat), 1e-3)
    found = gradients(engine)
    engine.close()
    return result, found


def error_of(found: Gradients, expected: Gradients) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected)


def trainer_of(objective: str, **changes: Any) -> Trainer:
    return replace(TRAINER, objective=objective, clip=0.0, betas=[BETA, 0.95], **changes)
