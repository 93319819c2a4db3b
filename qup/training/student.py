"""The student made ready for training: adapters, dropout, checkpointed activations, and the loss as its output layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qup.config.schema import Lora, Trainer, Zero
from qup.errors import InputError
from qup.training.attention import FLAT, tell_borders
from qup.training.batches import Tensors
from qup.training.losses import LossHead, Sums


class Trained(nn.Module):
    """A causal language model whose forward pass gives the loss sums over a micro-batch's targets.

    `causal` keeps its parameters' names; only its output layer is wrapped, and keeps its parameters too.
    """

    def __init__(self, causal: nn.Module, objective: str) -> None:
        super().__init__()
        self.causal = causal
        head = causal.get_output_embeddings()  # type: ignore[operator]
        if not isinstance(head, nn.Linear):
            raise InputError(f"{type(causal).__name__}: its output layer is a {type(head).__name__}; a linear one can be trained")
        causal.set_output_embeddings(LossHead(head, objective))  # type: ignore[operator]

    @property
    def body(self) -> nn.Module:
        """Everything below the output layer."""
        return getattr(self.causal, self.causal.base_model_prefix)  # type: ignore[arg-type,no-any-return]

    def hidden(self, input_ids: Tensor, position_ids: Tensor, **stretches: Any) -> Tensor:
        """Last hidden states, (rows · tokens) × H."""
        tell_borders(stretches)
        out = self.body(input_ids=input_ids, position_ids=position_ids, use_cache=False, **stretches)
        return out.last_hidden_state.flatten(0, 1)  # type: ignore[no-any-return]

    def forward(self, batch: Tensors) -> Sums:
        hidden_NH = self.hidden(batch.input_ids, batch.position_ids, **batch.stretches).index_select(0, batch.source_N)
        return self.causal.get_output_embeddings()(hidden_NH, batch.target_N, batch.weight_N)  # type: ignore[operator,no-any-return]


def prepare(causal: nn.Module, trainer: Trainer, zero: Zero) -> Trained:
    """Adapters, dropout, activation checkpointing, Liger kernels and compilation as configured. Raises InputError where one does not apply."""
    if trainer.liger:
        apply_liger(causal)
    set_dropout(causal, trainer.dropout)
    if trainer.lora is not None:
        torch.manual_seed(trainer.seed or 0)
        add_adapters(causal, trainer.lora)
    if trainer.activation_checkpointing:
        # ZeRO-3 empties weights between forward and recomputation, which the non-reentrant kind takes for a fault
        causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": zero.stage == 3})  # type: ignore[operator]
        if trainer.lora is not None:
            causal.enable_input_require_grads()  # type: ignore[operator]
    causal.train()
    trained = Trained(causal, trainer.objective)
    if trainer.compile:
        trained.body.compile(dynamic=True)
    return trained


def set_dropout(causal: nn.Module, share: float) -> None:
    """Sets attention dropout everywhere. InputError where the model knows none and some is asked for."""
    found = False
    for module in causal.modules():
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = share  # type: ignore[assignment]
            found = True
    if share > 0 and not found:
        raise InputError(f"trainer.dropout={share}: {type(causal).__name__} has no attention dropout; 0 is valid")


def lora_config(lora: Lora) -> Any:
    """peft's form of the settings."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), bias="none", task_type="CAUSAL_LM"
    )


def add_adapters(causal: nn.Module, lora: Lora) -> None:
    """Freezes the model and puts adapters into it, in place."""
    from peft import inject_adapter_in_model

    if "lm_head" in lora.targets:
        raise InputError("trainer.lora.targets: the output layer lm_head can't have an adapter; the projections of attention and MLP can")
    for parameter in causal.parameters():
        parameter.requires_grad_(False)
    try:
        inject_adapter_in_model(lora_config(lora), causal)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, module in causal.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"})
        raise InputError(f"trainer.lora.targets={list(lora.targets)}: {type(causal).__name__} has {', '.join(names)}") from error


def apply_liger(causal: nn.Module) -> None:
    """Liger's kernels for norms, rotary positions and the MLP. InputError where they are missing or there is no GPU."""
    if not torch.cuda.is_available():
        raise InputError("trainer.liger=true: Liger kernels need a GPU; false is valid here")
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError:
        raise InputError("trainer.liger=true: the package liger-kernel is not installed; pip install liger-kernel, or false") from None
    kind = causal.config.model_type  # type: ignore[union-attr]
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise InputError(f"trainer.liger=true: Liger has no kernels for models of type {kind}; false is valid")
    _apply_liger_kernel_to_instance(model=causal, cross_entropy=False, fused_linear_cross_entropy=False)


@torch.no_grad()
def probe(trained: Trained, device: torch.device | str, packing: bool = True) -> None:
    """Two things that must hold of any model we train, tried on a dozen tokens.

    Raises InputError where hidden states times the output layer are not the model's logits (it scales or caps them), or,
    with `packing`, where a packed example sees its neighbour (its code ignores restarting positions).
    """
    was_training = trained.training
    trained.eval()
    try:
        name = type(trained.causal).__name__
        ids = torch.arange(3, 15, device=device)[None] % 16
        apart = torch.arange(6, device=device).repeat(2)[None]
        stretches: dict[str, Any] = {}
        if trained.causal.config._attn_implementation in FLAT:  # type: ignore[union-attr]
            borders = torch.tensor([0, 6, 12], dtype=torch.int32, device=device)
            stretches = Tensors(ids, apart, ids, ids, borders=borders, longest=6).stretches
        tell_borders(stretches)
        logits = trained.causal(input_ids=ids, position_ids=apart, use_cache=False, **stretches).logits[0]
        hidden = trained.hidden(ids, apart, **stretches)
        ours = trained.causal.get_output_embeddings()(hidden)  # type: ignore[operator]
        if not _close(ours, logits):
            raise InputError(f"{name}: its logits are not its output layer's; models that scale or cap them can't be trained here")
        if not packing:
            return
        other = ids.clone()
        other[0, :6] = ids[0, :6].flip(0)
        if not _close(trained.hidden(other, apart, **stretches)[6:], hidden[6:]):
            raise InputError(f"trainer.packing=true: {name} lets examples of a row see each other; trainer.packing=false is valid")
    finally:
        trained.train(was_training)


def _close(a: Tensor, b: Tensor) -> bool:
    a, b = a.float(), b.float()
    return bool((a - b).abs().max() <= 1e-2 * b.abs().max().clamp(min=1e-6))


@contextmanager
def partitioned_loading(config: dict[str, Any] | None) -> Iterator[None]:
    """Under ZeRO-3 (`config` given) models load straight into their partitions; ends with no trace left behind."""
    if config is None:
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    alive = HfDeepSpeedConfig(config)
    try:
        yield
    finally:
        del alive
        unset_hf_deepspeed_config()
