"""AdamW, its parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from qup.config.schema import Trainer


def warmup_steps(total: int, ratio: float) -> int:
    """⌊ratio · total⌋, as the DFT recipe counts them."""
    return int(total * ratio)


def lr_factor(step: int, total: int, schedule: str, warmup: int) -> float:
    """Share of the peak learning rate at `step` (from 0) of `total`.

    Linear from 0 over the warm-up, then the schedule; the curve of the DFT recipe's trainer and of transformers.
    """
    if step < warmup:
        return step / max(1, warmup)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"unknown schedule {schedule!r}")


def decay_groups(model: nn.Module, weight_decay: float, decay_all: bool) -> list[dict[str, Any]]:
    """Parameter groups of what is trained. Without `decay_all`, vectors (norms, biases) are not decayed."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if decay_all:
        return [{"params": [parameter for _, parameter in trained], "weight_decay": weight_decay}]
    vectors = {name for name, parameter in trained if len(getattr(parameter, "ds_shape", parameter.shape)) < 2}
    return [
        {"params": [parameter for name, parameter in trained if name not in vectors], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in trained if name in vectors], "weight_decay": 0.0},
    ]


class PlainAdamW(torch.optim.AdamW):
    """AdamW for ZeRO stage 0, where DeepSpeed neither reports a gradient norm nor skips a step.

    It clips by the global norm and leaves weights and moments alone where that norm is not finite. The two public
    attributes are the ones DeepSpeed's engine looks for on its own optimizers.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], clip: float, **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.clip = clip
        self.overflow = False
        self._global_grad_norm: float = 0.0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        gradients: list[Tensor] = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._global_grad_norm = float(norm)
        self.overflow = not math.isfinite(self._global_grad_norm)
        if self.overflow:
            return
        if self.clip > 0:
            scale = self.clip / (self._global_grad_norm + 1e-6)
            if scale < 1:
                torch._foreach_mul_(gradients, scale)
        super().step()


def build_optimizer(model: nn.Module, trainer: Trainer, stage: int) -> torch.optim.AdamW:
    """The optimizer that DeepSpeed wraps; its learning rate is set anew at every step."""
    groups = decay_groups(model, trainer.weight_decay, trainer.decay_all)
    settings: dict[str, Any] = {"lr": trainer.lr, "betas": tuple(trainer.betas), "eps": trainer.eps, "fused": True}
    if stage == 0:
        return PlainAdamW(groups, trainer.clip, **settings)
    return torch.optim.AdamW(groups, **settings)


def settle_state(optimizer: Any) -> None:
    """Moves every tensor of an optimizer's state to where its parameter lives; a wrapped optimizer is looked into.

    DeepSpeed's universal loading leaves `step` in CPU memory, and fused AdamW on a GPU refuses that.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    for parameter, state in inner.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.device != parameter.device:
                state[name] = value.to(parameter.device)
