"""The loss over target positions, with its gradient formed while the logits are there.

The full T × V logits never exist. Each chunk of targets gives its share of ∂hidden and ∂weight in closed form and
is then forgotten; the backward pass only scales what is already known. Axes: N target positions, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from qup.training.objectives import OBJECTIVES, Objective

CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Logits held at once (float32), by device type; on CPU what the caches bear."""
FEWEST_ROWS = 128
"""Below this a chunk's matrix products are bound by reading the weight."""


class Sums(NamedTuple):
    """Sums over a micro-batch's target tokens: four float32 scalars; only `loss` has a gradient."""

    loss: Tensor
    nll: Tensor
    p: Tensor
    tokens: Tensor


def chunk_rows(vocabulary: int, device: str) -> int:
    """Targets a chunk: between 128 and 2048, a multiple of 32."""
    rows = CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cpu"]) // max(vocabulary, 1)
    return max(FEWEST_ROWS, min(2048, rows // 32 * 32))


class ChunkedLoss(torch.autograd.Function):
    """(hidden_NH, weight_VH, bias_V | None, target_N, objective, rows, share_N | None) → Sums.

    Softmax in float32, ∂weight added up in float32. `share_N` multiplies each target's loss; nll and p stay plain sums.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        objective: Objective,
        rows: int,
        share_N: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        want_hidden, want_weight, want_bias = ctx.needs_input_grad[:3]
        sums = torch.zeros(3, dtype=torch.float32, device=hidden_NH.device)
        d_hidden = torch.zeros_like(hidden_NH) if want_hidden else None
        d_weight = torch.zeros(weight_VH.shape, dtype=torch.float32, device=weight_VH.device) if want_weight else None
        d_bias = torch.zeros(bias_V.shape, dtype=torch.float32, device=bias_V.device) if want_bias and bias_V is not None else None
        buffer = torch.empty(min(rows, len(target_N)), len(weight_VH), dtype=torch.float32, device=hidden_NH.device)
        for start in range(0, len(target_N), rows):
            hidden, target = hidden_NH[start : start + rows], target_N[start : start + rows, None]
            logits = _logits(hidden, weight_VH, bias_V, buffer[: len(target)])
            top = logits.amax(1, keepdim=True)
            shifted = logits.gather(1, target) - top
            e = logits.sub_(top).exp_()
            total = e.sum(1, keepdim=True)
            logp = (shifted - total.log()).squeeze(1)
            loss, weight = objective(logp)
            if share_N is not None:
                share = share_N[start : start + rows]
                loss, weight = loss * share, weight * share
            sums += torch.stack((loss.sum(), -logp.sum(), logp.exp().sum()))
            if not (want_hidden or want_weight or want_bias):
                continue
            # e − total · onehot is total · (softmax − onehot); subtracting in float32 keeps p − 1 exact for confident tokens
            e.scatter_add_(1, target, -total)
            scale = weight[:, None] / total
            d_logits = e.to(weight_VH.dtype)
            if d_hidden is not None:
                d_hidden[start : start + rows] = (d_logits @ weight_VH) * scale
            if d_weight is not None:
                _add_product(d_weight, d_logits.T, (hidden * scale).to(d_logits.dtype))
            if d_bias is not None:
                d_bias += (e * scale).sum(0)
        ctx.parts = (d_hidden, d_weight, d_bias)
        ctx.dtypes = (weight_VH.dtype, bias_V.dtype if bias_V is not None else None)
        tokens = torch.tensor(float(len(target_N)), device=hidden_NH.device)
        loss_sum, nll_sum, p_sum = sums.unbind()
        ctx.mark_non_differentiable(nll_sum, p_sum, tokens)
        return loss_sum.clone(), nll_sum, p_sum, tokens

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.parts is None:
            raise RuntimeError("the gradient of a chunked loss was asked for twice; it is formed once, in the forward pass")
        (d_hidden, d_weight, d_bias), ctx.parts = ctx.parts, None
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            d_hidden.mul_(d_loss) if d_hidden is not None else None,
            d_weight.mul_(d_loss).to(weight_dtype) if d_weight is not None else None,
            d_bias.mul_(d_loss).to(bias_dtype) if d_bias is not None else None,
            None,
            None,
            None,
            None,
        )


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, into: Tensor) -> Tensor:
    """hidden @ weight.T + bias as float32, into memory that all chunks share."""
    if weight.dtype == hidden.dtype == into.dtype:
        torch.mm(hidden, weight.T, out=into)
        return into if bias is None else into.add_(bias)
    return into.copy_(functional.linear(hidden, weight, bias))


def _add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """into (float32) += a @ b, without a float32 copy of a or b."""
    if a.dtype == into.dtype:
        into.addmm_(a, b)
    elif a.is_cuda:
        torch.addmm(into, a, b, out_dtype=into.dtype, out=into)
    else:
        into += a @ b


class LossHead(nn.Module):
    """The model's own output layer, able to go straight from hidden states to the loss.

    It stays a module with the output layer's parameters under their own names, so that ZeRO-3's hooks gather the
    weight for the forward pass and find its gradient where they look for it; a tied embedding stays tied.
    """

    def __init__(self, linear: nn.Linear, objective: str) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.vocabulary = linear.out_features
        self.objective = OBJECTIVES[objective]

    def forward(self, hidden_NH: Tensor, target_N: Tensor | None = None, share_N: Tensor | None = None) -> Sums | Tensor:
        """Sums over `target_N`, each loss times `share_N`; without targets the logits, as the layer it replaces gives them."""
        if target_N is None:
            return functional.linear(hidden_NH, self.weight, self.bias)
        rows = chunk_rows(self.vocabulary, hidden_NH.device.type)
        return Sums(*ChunkedLoss.apply(hidden_NH, self.weight, self.bias, target_N, self.objective, rows, share_N))
