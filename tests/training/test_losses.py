from __future__ import annotations

import pytest
import torch
from torch import nn

from qup.training.losses import ChunkedLoss, LossHead, chunk_rows
from qup.training.objectives import OBJECTIVES

N, H, V = 150, 16, 70


def plain(hidden: torch.Tensor, head: nn.Linear, target: torch.Tensor, objective: str, share: torch.Tensor | float = 1.0) -> torch.Tensor:
    """The definition, over whole logits in the precision they have (PAPER: −sg(p) log p); `share` multiplies each target's loss."""
    logp = head(hidden).log_softmax(-1).gather(1, target[:, None]).squeeze(1)
    return (share * (-logp if objective == "sft" else -logp.exp().detach() * logp)).sum()


def parts(bias: bool = True, peak: float = 3.0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(N, H, generator=generator) * peak).to(dtype).requires_grad_()
    head = nn.Linear(H, V, bias=bias).to(dtype)
    return hidden, head, torch.randint(0, V, (N,), generator=generator)


def test_every_objective_is_tried_here() -> None:
    assert set(OBJECTIVES) == {"sft", "dft"}


@pytest.mark.parametrize("objective", ["sft", "dft"])
@pytest.mark.parametrize("rows", [1, 32, 149, 150, 1000])
@pytest.mark.parametrize("bias", [True, False])
def test_loss_and_gradients_are_the_plain_ones(objective: str, rows: int, bias: bool) -> None:
    hidden, head, target = parts(bias)
    wanted = [hidden, *head.parameters()]
    reference = plain(hidden, head, target, objective)
    expected = torch.autograd.grad(reference * 0.3, wanted)
    sums = ChunkedLoss.apply(hidden, head.weight, head.bias, target, OBJECTIVES[objective], rows)
    found = torch.autograd.grad(sums[0] * 0.3, wanted)
    assert torch.allclose(sums[0], reference, rtol=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


def test_sums_are_of_nll_p_and_tokens() -> None:
    hidden, head, target = parts()
    sums = LossHead(head, "dft")(hidden, target)
    logp = head(hidden).log_softmax(-1).gather(1, target[:, None])
    assert torch.allclose(sums.nll, -logp.sum())
    assert torch.allclose(sums.p, logp.exp().sum())
    assert sums.tokens == N


def test_dft_loss_is_smaller_and_nll_the_same() -> None:
    hidden, head, target = parts()
    sft, dft = LossHead(head, "sft")(hidden, target), LossHead(head, "dft")(hidden, target)
    assert dft.loss < sft.loss
    assert torch.equal(sft.nll, dft.nll) and torch.equal(sft.nll, sft.loss.detach())


def test_a_confident_token_keeps_its_gradient_in_bfloat16() -> None:
    """p − 1 is formed before rounding: p itself rounds to 1, and a difference taken after that would be nought or far too large."""
    head = nn.Linear(V, V, bias=False).to(torch.bfloat16)
    target = torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.weight.copy_(12 * torch.eye(V))
    hidden = torch.nn.functional.one_hot(target, V).to(torch.bfloat16).requires_grad_()
    whole = [tensor.detach().float().requires_grad_() for tensor in (hidden, head.weight)]
    logp = (whole[0] @ whole[1].T).log_softmax(-1).gather(1, target[:, None])
    assert 0.999 < logp.exp().min() < 1 - 1e-4
    expected = torch.autograd.grad(-logp.sum(), whole)
    found = torch.autograd.grad(LossHead(head, "sft")(hidden, target).loss, [hidden, head.weight])
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.float() - theirs).norm() < 0.01 * theirs.norm()


def test_frozen_weight_gets_no_gradient_and_no_buffer() -> None:
    hidden, head, target = parts()
    head.requires_grad_(False)
    LossHead(head, "sft")(hidden, target).loss.backward()
    assert head.weight.grad is None and hidden.grad is not None


def test_no_targets_give_a_connected_zero() -> None:
    hidden, head, target = parts()
    sums = LossHead(head, "dft")(hidden[:0], target[:0])
    sums.loss.backward()
    assert sums.loss == 0 and sums.tokens == 0
    assert head.weight.grad is not None and not head.weight.grad.any()


def test_a_second_backward_is_refused() -> None:
    hidden, head, target = parts()
    loss = LossHead(head, "sft")(hidden, target).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="asked for twice"):
        loss.backward()


def test_chunks_bound_the_logits_held() -> None:
    for vocabulary in (100, 50_000, 151_936):
        assert chunk_rows(vocabulary, "cpu") % 32 == 0
    assert chunk_rows(151_936, "cpu") * 151_936 * 4 <= 80e6
    assert chunk_rows(100, "cpu") == 2048
