"""The attention kernel of a training: the one asked for, else the fastest that GPU, dtype, packages and model have.

Kernels of variable length take rows laid behind each other and are told where each example begins: no mask, and no cost
for pairs of tokens of two examples. torch carries one (`torch_varlen` here); the package flash-attn is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qup.config.schema import Trainer
from qup.errors import InputError

TORCH_VARLEN = "torch_varlen"
FLAT = ("flash_attention_2", TORCH_VARLEN)
"""Kernels that take rows laid behind each other."""
UNEVEN = ("attn_logit_softcapping", "attention_chunk_size", "v_head_dim", "kv_lora_rank", "qk_rope_head_dim")
"""Settings of attention that caps, looks at chunks, or has keys and values of different widths."""
_told: dict[str, Any] = {}


def use_attention(causal: nn.Module, trainer: Trainer, cuda: bool) -> str:
    """Sets the kernel and returns its name. It changes rounding only.

    `auto` replaces nothing but sdpa. Raises InputError where the one asked for can't be had.
    """
    current = str(causal.config._attn_implementation)  # type: ignore[union-attr]
    wanted = trainer.attention
    if wanted == "auto":
        able = current == "sdpa" and cuda and trainer.dtype == "bfloat16" and _ampere() and getattr(causal, "_supports_flash_attn", False)
        if not able:
            return current
        wanted = "flash_attention_2" if _flash_installed() else TORCH_VARLEN
    if wanted == TORCH_VARLEN:
        if why := _unfit(causal, trainer, cuda):
            if trainer.attention == "auto":
                return current
            raise InputError(f"trainer.attention={wanted}: {why}; auto is valid")
        _register()
    try:
        causal.set_attn_implementation(wanted)  # type: ignore[operator]
    except (ImportError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"trainer.attention={wanted}: {type(causal).__name__} can't have it here ({reason}); auto is valid") from None
    taken = str(causal.config._attn_implementation)  # type: ignore[union-attr]
    if taken != wanted and trainer.attention == wanted:
        raise InputError(f"trainer.attention={wanted}: {type(causal).__name__} keeps {taken}, whatever is asked for; auto is valid")
    return taken


def plain(causal: nn.Module) -> bool:
    """Whether its attention is softmax(q·k) over all earlier tokens, heads of one width up to 256: nothing capped, no window, no sinks."""
    text = causal.config.get_text_config()  # type: ignore[union-attr,operator]
    try:
        windowed = getattr(text, "use_sliding_window", getattr(text, "sliding_window", None) is not None)
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        odd = any(getattr(text, name, None) for name in UNEVEN)
    except Exception:  # a setting that differs from layer to layer raises errors of many kinds
        return False
    sinks = any("sinks" in name for name, _ in causal.named_parameters())
    return not windowed and kinds == {"full_attention"} and not odd and not sinks and width <= 256 and width % 8 == 0


def tell_borders(stretches: Mapping[str, Any]) -> None:
    """Says where the examples of the next forward pass begin, and of the backward pass, which may compute it again.

    Models are told in the call as well, but not all hand down to their attention what they are told.
    """
    _told.clear()
    _told.update(stretches)


def attend(
    module: nn.Module,
    query_1HTD: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each stretch between borders, as transformers calls its kernels: [1, heads, T, D] → [1, T, heads, D]."""
    from torch.nn.attention.varlen import varlen_attn

    if not _told or len(query_1HTD) != 1:
        raise ValueError("torch_varlen needs one row and the borders of its examples")
    borders, longest = _told["cu_seq_lens_q"], _told["max_length_q"]
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query_1HTD, key, value))
    out = varlen_attn(
        query, key, value, borders, borders, longest, longest,
        scale=scaling, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return out[None], None  # type: ignore[index]


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(TORCH_VARLEN, attend)
    AttentionMaskInterface.register(TORCH_VARLEN, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _unfit(causal: nn.Module, trainer: Trainer, cuda: bool) -> str:
    if not cuda or not _ampere():
        return "needs a GPU of NVIDIA's Ampere generation or later"
    if trainer.dtype != "bfloat16":
        return f"needs trainer.dtype=bfloat16, not {trainer.dtype}"
    if trainer.dropout > 0:
        return f"knows no attention dropout, and trainer.dropout={trainer.dropout:g}"
    if not plain(causal):
        return f"{type(causal).__name__} has windows, caps or sinks in its attention, or heads of a width it does not know"
    return ""


def _ampere() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8


def _flash_installed() -> bool:
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())
