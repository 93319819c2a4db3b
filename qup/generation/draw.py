"""From logits to tokens: counter-based random numbers, filters, and the log-probability of what was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Logits looked at together, by device type: rows are drawn in groups, for an entry takes 16 bytes on the way."""

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea and Flood, OOPSLA 2014): a bijection of 64-bit words, elementwise."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def uniforms(key_R: np.ndarray, position_R: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), float64: one for each row's stream key (uint64) and position; no state, no order."""
    counter = _mix((position_R.astype(np.uint64) + np.uint64(1)) * _STEP)
    return (_mix(key_R ^ counter) >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class Draw:
    """How a token is drawn; filters in the order temperature, top-k, top-p, min-p."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def filtered(self) -> bool:
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    def __call__(self, logits_RV: Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (int64) and their log-probabilities under the plain softmax of the logits (fp32), each R.

        A token is the first whose cumulated probability exceeds uniform · total, in vocabulary order, or in order of
        falling probability where a filter applies. `uniform_R` is float64 and not read when greedy.
        """
        at_once = max(1, AT_ONCE.get(logits_RV.device.type, AT_ONCE["cpu"]) // logits_RV.shape[-1])
        parts = [self._drawn(*part) for part in zip(logits_RV.split(at_once), uniform_R.split(at_once))]
        token_parts, logprob_parts = zip(*parts)
        return torch.cat(token_parts), torch.cat(logprob_parts)

    def _drawn(self, logits_RV: Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
        logits_RV = logits_RV.float()
        if not self.greedy and not self.filtered and self.temperature == 1:
            most_R1 = logits_RV.amax(-1, keepdim=True)
            token_R, mass_R = _pick((logits_RV - most_R1).exp_(), uniform_R)
            total_R = mass_R.log_().float() + most_R1[:, 0]
            return token_R, logits_RV.gather(-1, token_R[:, None])[:, 0] - total_R
        if self.greedy:
            token_R = logits_RV.argmax(-1)
        elif self.filtered:
            token_R = self._draw_filtered(logits_RV, uniform_R)
        else:
            token_R, _ = _pick((logits_RV / self.temperature).softmax(-1), uniform_R)
        return token_R, logits_RV.gather(-1, token_R[:, None])[:, 0] - torch.logsumexp(logits_RV, -1)

    def kept(self, probability_RV: Tensor) -> Tensor:
        """Which of a row's probabilities, sorted falling, the filters keep: a leading run that is never empty."""
        kept_RV = torch.ones_like(probability_RV, dtype=torch.bool)
        if self.top_k:
            kept_RV[:, self.top_k :] = False
        if self.top_p < 1:
            mass_RV = torch.where(kept_RV, probability_RV, 0).double()
            before_RV = mass_RV.cumsum(-1) - mass_RV
            kept_RV &= before_RV < self.top_p * mass_RV.sum(-1, keepdim=True)
        if self.min_p:
            kept_RV &= probability_RV >= self.min_p * probability_RV[:, :1]
        kept_RV[:, 0] = True
        return kept_RV

    def _draw_filtered(self, logits_RV: Tensor, uniform_R: Tensor) -> Tensor:
        probability_RV, order_RV = (logits_RV / self.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        place_R, _ = _pick(torch.where(self.kept(probability_RV), probability_RV, 0), uniform_R)
        return order_RV.gather(-1, place_R[:, None])[:, 0]


def _pick(weight_RV: Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of the cumulated weights, and their sums (float64); an entry of weight 0 is never picked."""
    cumulated_RV = weight_RV.cumsum(-1, dtype=torch.float64)
    target_R1 = uniform_R[:, None] * cumulated_RV[:, -1:]
    return torch.searchsorted(cumulated_RV, target_R1, right=True)[:, 0], cumulated_RV[:, -1]
