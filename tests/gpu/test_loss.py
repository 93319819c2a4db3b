"""The loss head on a GPU against plain torch over whole logits, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from qup.training.losses import LossHead, chunk_rows
from tests.training.test_losses import plain

H = 64
OBJECTIVES = ("sft", "dft")


def parts(device: str, n: int, vocabulary: int, bias: bool = True) -> tuple[torch.Tensor, nn.Linear, torch.Tensor, torch.Tensor]:
    """Hidden states, output layer, targets, and a weight for each."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, H, generator=generator)
    head = nn.Linear(H, vocabulary, bias=bias)
    with torch.no_grad():
        head.weight.copy_(torch.randn(vocabulary, H, generator=generator) * 0.3)
    target = torch.randint(0, vocabulary, (n,), generator=generator)
    share = torch.rand(n, generator=generator) * 2
    return hidden.to(device).requires_grad_(), head.to(device), target.to(device), share.to(device)


def gradients_of(loss: torch.Tensor, hidden: torch.Tensor, head: nn.Linear) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss * 0.3, [hidden, *head.parameters()]))


def furthest(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    return max(float((ours.double() - theirs).norm() / theirs.norm()) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("vocabulary", [70, 50_257], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_and_gradients_in_float32_are_the_plain_ones(device: str, objective: str, weighted: bool, bias: bool, vocabulary: int) -> None:
    n = 150 if device == "cpu" else 3 * chunk_rows(vocabulary, device) // 2
    hidden, head, target, share = parts(device, n, vocabulary, bias)
    whole, layer = hidden.detach().double().requires_grad_(), copy.deepcopy(head).double()
    expected = plain(whole, layer, target, objective, share.double() if weighted else 1.0)
    found = LossHead(head, objective)(hidden, target, share if weighted else None).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert furthest(gradients_of(found, hidden, head), gradients_of(expected, whole, layer)) < 1e-5


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bfloat16_stays_within_a_percent(device: str, objective: str, weighted: bool) -> None:
    """Of the float64 loss and gradients of the very same weights: logits are rounded to eight bits, sums are not."""
    hidden, head, target, share = parts(device, 500, 1000, bias=False)
    hidden, head = hidden.detach().bfloat16().requires_grad_(), head.bfloat16()
    whole, layer = hidden.detach().double().requires_grad_(), copy.deepcopy(head).double()
    expected = plain(whole, layer, target, objective, share.double() if weighted else 1.0)
    found = LossHead(head, objective)(hidden, target, share if weighted else None).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-2)
    assert furthest(gradients_of(found, hidden, head), gradients_of(expected, whole, layer)) < 1e-2


def test_float32_products_are_not_rounded_to_tf32(device: str) -> None:
    """qup leaves torch's setting alone, which is full precision; nothing that it imports may have changed that."""
    assert torch.get_float32_matmul_precision() == "highest"
    a, b = (torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)).to(device) for seed in (0, 1))
    exact = a.double() @ b.double()
    assert (a @ b - exact).norm() < 1e-6 * exact.norm()


def test_whole_logits_are_never_held(card: torch.device) -> None:
    n, vocabulary = 8000, 151_936
    hidden, head, target, _ = parts("cuda", n, vocabulary, bias=False)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    LossHead(head, "dft")(hidden, target).loss.backward()
    assert torch.cuda.max_memory_allocated() - before < n * vocabulary * 4 / 3
