"""The gradient of a trace's mean NLL, projected at random to a few numbers, for GRACE.

The authors project by a dense matrix of random signs, divided by √P. Here every parameter has a random sign too and goes
into one of d sums, chosen at random in blocks (Charikar et al. 2002; Weinberger et al. 2009): as unbiased for inner
products, at the price of one pass over the gradient, and with P/8 bytes of signs instead of P × d numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from qup.scoring.nll import CHUNK_BYTES, Encoded

BLOCK = 1 << 20
"""Parameters projected at once."""


class Projection:
    """A random projection of vectors of `size` numbers to `dimensions`; the same for equal seed, size and dimensions."""

    def __init__(self, size: int, dimensions: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.size, self.dimensions = size, dimensions
        self.block = max(1, min(BLOCK // dimensions, -(-size // dimensions))) * dimensions
        generator = torch.Generator().manual_seed(seed)
        self._signs = torch.randint(0, 256, (-(-size // 8),), dtype=torch.uint8, generator=generator).to(device)
        self._order = torch.randperm(self.block, generator=generator).to(device)
        self._bits = torch.arange(8, dtype=torch.uint8, device=device)

    def __call__(self, parts: Iterator[torch.Tensor]) -> torch.Tensor:
        """fp32 [dimensions] of the vector that the parts make up, one after the other."""
        total = torch.zeros(self.dimensions, dtype=torch.float32, device=self._order.device)
        held = torch.zeros(self.block, dtype=torch.float32, device=self._order.device)
        done = filled = 0
        for part in parts:
            flat = part.reshape(-1)
            at = 0
            while at < len(flat):
                count = min(self.block - filled, len(flat) - at)
                held[filled : filled + count] = flat[at : at + count]
                filled, at = filled + count, at + count
                if filled == self.block:
                    total += self._fold(held, done)
                    done, filled = done + filled, 0
        if filled:
            held[filled:] = 0
            total += self._fold(held, done)
        if done + filled != self.size:
            raise ValueError(f"{done + filled} numbers given to a projection of {self.size}")
        return total * (self.dimensions / self.size) ** 0.5

    def _fold(self, block: torch.Tensor, start: int) -> torch.Tensor:
        return (block * self.signs(start, self.block))[self._order].view(-1, self.dimensions).sum(0)

    def signs(self, start: int, count: int) -> torch.Tensor:
        """Signs of the numbers from `start` on, a multiple of 8 or the last ones; 1 beyond the end."""
        first, offset = divmod(start, 8)
        packed = self._signs[first : first + -(-(count + offset) // 8)]
        found = ((packed[:, None] >> self._bits) & 1).flatten()[offset : offset + count].float().mul_(2).sub_(1)
        return torch.nn.functional.pad(found, (0, count - len(found)), value=1.0)


class GradientScorer:
    """Projected gradients of traces under a causal language model, over all of its parameters."""

    def __init__(self, model: Any, *, dimensions: int, seed: int) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.parameters = [parameter.requires_grad_() for parameter in model.parameters()]
        self.projection = Projection(sum(parameter.numel() for parameter in self.parameters), dimensions, seed, self.device)
        self.chunk = max(1, CHUNK_BYTES.get(self.device.type, CHUNK_BYTES["cpu"]) // (4 * model.get_output_embeddings().weight.shape[0]))

    def gradient(self, trace: Encoded) -> np.ndarray:
        """fp32 [dimensions]: of the mean NLL over the response, the stop token left out; NaN without any token."""
        response = trace.response_ids[:-1]
        if not response:
            return np.full(self.projection.dimensions, np.nan, np.float32)
        ids = torch.tensor([*trace.prompt_ids, *response[:-1]], device=self.device)
        target = torch.tensor(response, device=self.device)
        states = self.model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state[0][len(trace.prompt_ids) - 1 :]
        total = torch.zeros((), device=self.device)
        for start in range(0, len(target), self.chunk):
            part = slice(start, start + self.chunk)
            total = total + checkpoint(self._nll, states[part], target[part], use_reentrant=False)
        (total / len(target)).backward()  # type: ignore[no-untyped-call]
        found = self.projection(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in self.parameters)
        for parameter in self.parameters:
            parameter.grad = None
        return found.cpu().numpy()

    def _nll(self, states: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = self.model.get_output_embeddings()(states).float()
        return torch.nn.functional.cross_entropy(logits, target, reduction="sum")
