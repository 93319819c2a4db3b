"""What is minimised, per target token. A new objective is one function here and its name in the schema's choices.

An objective maps log p(y_t) to the token's loss and to the weight w_t of its gradient: the engine uses
d loss_t / d logits_t = w_t · (softmax(logits_t) − onehot(y_t)), so w_t = −d loss_t / d log p(y_t), with
whatever stands under a stop-gradient held constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""logp_T (float32) → loss_T, weight_T."""


def sft(logp_T: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy: −log p."""
    return -logp_T, torch.ones_like(logp_T)


def dft(logp_T: Tensor) -> tuple[Tensor, Tensor]:
    """Dynamic Fine-Tuning (arXiv 2508.05629): −sg(p) · log p."""
    p_T = logp_T.exp()
    return -p_T * logp_T, p_T


OBJECTIVES: Mapping[str, Objective] = MappingProxyType({"sft": sft, "dft": dft})
