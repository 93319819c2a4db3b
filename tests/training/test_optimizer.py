from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from qup.training.optimizer import PlainAdamW, build_optimizer, lr_factor, settle_state, warmup_steps
from tests.training.world import TRAINER


@pytest.mark.parametrize(("schedule", "theirs"), [("cosine", get_cosine_schedule_with_warmup), ("linear", get_linear_schedule_with_warmup)])
def test_schedules_are_those_of_transformers(schedule: str, theirs) -> None:  # type: ignore[no-untyped-def]
    total, warmup = 37, warmup_steps(37, 0.1)
    assert warmup == 3
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = theirs(optimizer, warmup, total)
    for step in range(total):
        assert math.isclose(lr_factor(step, total, schedule, warmup), reference.get_last_lr()[0], abs_tol=1e-12)
        optimizer.step()
        reference.step()


def test_constant_after_warm_up() -> None:
    assert [lr_factor(step, 10, "constant", 2) for step in range(4)] == [0.0, 0.5, 1.0, 1.0]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))


@pytest.mark.parametrize(("decay_all", "decayed"), [(True, 4), (False, 1)])
def test_decay_covers_all_or_leaves_vectors_out(decay_all: bool, decayed: int) -> None:
    optimizer = build_optimizer(model(), replace(TRAINER, decay_all=decay_all, weight_decay=0.1), 1)
    assert sum(len(group["params"]) for group in optimizer.param_groups if group["weight_decay"] == 0.1) == decayed
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_plain_adamw_clips_by_the_global_norm_and_tells_it() -> None:
    ours, theirs = model(), model()
    optimizer = PlainAdamW([{"params": list(ours.parameters())}], 0.5, lr=0.1)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.1)
    x = torch.randn(3, 4)
    for net in (ours, theirs):
        (net(x) ** 3).sum().backward()
    norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
    optimizer.step()
    reference.step()
    assert math.isclose(optimizer._global_grad_norm, norm.item(), rel_tol=1e-6)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b)


def test_plain_adamw_leaves_everything_alone_on_a_gradient_that_is_not_finite() -> None:
    net = model()
    optimizer = PlainAdamW([{"params": list(net.parameters())}], 1.0, lr=0.1)
    before = [parameter.clone() for parameter in net.parameters()]
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    optimizer.step()
    assert optimizer.overflow and not optimizer.state
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_state_lives_where_its_parameter_does_after_universal_loading() -> None:
    """Loading leaves `step` in CPU memory; `meta` stands in for a GPU here."""
    parameter = nn.Parameter(torch.zeros(3, device="meta"))
    inner = torch.optim.AdamW([parameter])
    inner.state[parameter] = {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3, device="meta")}

    class Wrapped:
        optimizer = inner

    settle_state(Wrapped())
    assert {value.device.type for value in inner.state[parameter].values()} == {"meta"}
