"""DeepSpeed, driven directly: one optimizer step over a micro-batched, packed global batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from qup.config.schema import Trainer, Zero
from qup.errors import StoreError
from qup.training.batches import Step, Tensors
from qup.training.optimizer import build_optimizer, settle_state
from qup.training.ranks import World


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step saw; means are over the step's target tokens, `loss` by the normalisation in force."""

    loss: float
    nll: float
    p: float
    tokens: int
    grad_norm: float
    skipped: bool
    """The gradient was not finite: weights and moments are as before."""
    stop: bool = False
    """Some rank was asked to stop."""
    due: bool = False
    """Rank 0's clock says that a checkpoint is due."""


def deepspeed_config(trainer: Trainer, zero: Zero, cuda: bool, universal: bool = False) -> dict[str, Any]:
    """DeepSpeed's configuration. Nothing in it is left to `auto`, and nothing of it compiles an extension."""
    zero_section: dict[str, Any] = {"stage": zero.stage, "overlap_comm": cuda and zero.overlap and zero.stage >= 2}
    if zero.stage == 3:
        zero_section |= {"stage3_gather_16bit_weights_on_model_save": True}
        if zero.offload:
            place = {"device": "cpu", "pin_memory": cuda}
            zero_section |= {"offload_optimizer": place, "offload_param": place}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": trainer.clip if zero.stage > 0 else 0.0,
        "steps_per_print": None,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero_section,
        "checkpoint": {"load_universal": universal},
    }
    if trainer.dtype == "bfloat16":
        whole = trainer.master == "bfloat16"
        config["bf16"] = {"enabled": True, "bf16_master_weights_and_grads": whole, "bf16_optimizer_states": whole}
    return config


class Engine:
    """A model in training. All ranks call the same methods in the same order."""

    def __init__(self, model: nn.Module, trainer: Trainer, zero: Zero, world: World, universal: bool = False) -> None:
        import deepspeed

        self.trainer, self.zero, self.world, self.universal = trainer, zero, world, universal
        self.device = torch.device(world.device)
        optimizer = build_optimizer(model, trainer, zero.stage)
        config = deepspeed_config(trainer, zero, self.device.type == "cuda", universal)
        self.deepspeed, self.optimizer, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
        if zero.stage == 0 and world.size == 1:
            # nothing to average: spares a flat copy of every gradient
            self.deepspeed.enable_backward_allreduce = False

    @property
    def model(self) -> nn.Module:
        """What was handed in, as DeepSpeed left it (under ZeRO-3: partitioned)."""
        return self.deepspeed.module  # type: ignore[no-any-return]

    @property
    def bytes_to_come(self) -> int:
        """Bytes on this rank's device that the first optimizer step adds and keeps: the moments, which nothing allocates before."""
        if self.zero.offload:
            return 0
        trained = sum(getattr(p, "ds_numel", p.numel()) for p in self.model.parameters() if p.requires_grad)
        each = 4 if self.trainer.master == "bfloat16" else 8
        return each * trained // (self.world.size if self.zero.stage > 0 else 1)

    def scales(self, step: Step, masses: Sequence[float]) -> list[float]:
        """Factor of this rank's loss sum in each micro-batch, so that DeepSpeed's mean over ranks gives the normalisation asked for."""
        counts = [[sum(masses[i] for row in part.rows for i in row) for part in turn] for turn in step.micro_batches]
        mine = [turn[self.world.rank] for turn in counts]
        match self.trainer.normalisation:
            case "global":
                return [self.world.size / step.mass if step.mass else 0.0] * len(mine)
            case "micro_batch":
                filled = sum(1 for turn in counts for count in turn if count)
                return [self.world.size / (filled * count) if count else 0.0 for count in mine]
            case "dft_repo":
                return [1.0 / count if count else 0.0 for count in mine]
        raise ValueError(f"unknown normalisation {self.trainer.normalisation!r}")

    def step(
        self,
        step: Step,
        masses: Sequence[float],
        tensors: Iterable[Tensors],
        lr: float,
        flags: Callable[[], tuple[bool, bool]] = lambda: (False, False),
    ) -> StepResult:
        """One optimizer step; `masses[i]` is example i's weight times its number of target tokens, by which losses are divided.

        `flags()` says whether this rank was asked to stop and whether it finds a checkpoint due; both travel with the sums.
        """
        scales = self.scales(step, masses)
        sums = torch.zeros(6, dtype=torch.float64, device=self.device)
        for scale, batch in zip(scales, tensors, strict=True):
            out = self.deepspeed(batch.to(self.device))
            self.deepspeed.backward(out.loss * scale, scale_wrt_gas=False)
            sums[:4] += torch.stack((out.loss.detach() * scale, out.nll, out.p, out.tokens))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.deepspeed.step()
        sums[4], sums[5] = (float(flag) for flag in flags())
        if self.world.size > 1:
            distributed.all_reduce(sums)
        loss, nll, p, tokens, stops, dues = sums.tolist()
        loss /= self.world.size
        if self.trainer.normalisation == "dft_repo":
            loss /= len(scales)
        skipped = bool(getattr(self.optimizer, "overflow", False))
        norm = math.nan if skipped else float(self.deepspeed.get_global_grad_norm() or 0.0)
        return StepResult(loss, nll / max(tokens, 1), p / max(tokens, 1), int(tokens), norm, skipped, stops > 0, dues > 0)

    def rehearse(self, batch: Tensors) -> None:
        """Forward and backward with a gradient of zero, to see what memory it takes."""
        out = self.deepspeed(batch.to(self.device))
        self.deepspeed.backward(out.loss * 0.0, scale_wrt_gas=False)

    def save(self, root: Path, tag: str) -> None:
        """Writes weights, moments and master copies under `root/tag`, every rank its own shard."""
        self.deepspeed.save_checkpoint(str(root), tag=tag, save_latest=False, exclude_frozen_parameters=False)

    def load(self, root: Path, tag: str) -> None:
        """Reads what `save` wrote."""
        path, _ = self.deepspeed.load_checkpoint(str(root), tag=tag)
        if path is None:
            raise StoreError(f"{root / tag}: DeepSpeed found no checkpoint there")
        settle_state(self.optimizer)

    def close(self) -> None:
        """Lets go of hooks and buffers."""
        self.deepspeed.destroy()

    def barrier(self) -> None:
        if self.world.size > 1:
            distributed.barrier()
