"""A lean decoder for the Llama family (Llama, Qwen2, Qwen3, Mistral without a sliding window), in plain torch operations.

For small models and short steps the forward pass of transformers is mostly overhead. This one reads the module's own
weights, does the linear layers of all rows at once and attention block by block: grouped queries share a key head
as if they were positions, so nothing is repeated, and columns are uniform within a block, so appending is a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qup.generation.block import Block, Prefix
from qup.generation.decoder import pad

FAMILY = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM")
FUSE_BELOW = 8_000_000
"""Parameters up to which projections are copied into one matrix each: memory for speed, where memory is nothing."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def supports(model: Any) -> bool:
    """Whether `LeanDecoder` computes exactly this model: known architecture, plain linear layers, static rotary positions."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        type(model).__name__ in FAMILY
        and type(model).__module__.startswith("transformers.models.")
        and config._attn_implementation in ("sdpa", "eager")
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") in ("default", "linear", "llama3", "yarn")
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and not getattr(config, "sliding_window", None)
        and set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
        and all(type(module) is nn.Linear for layer in model.model.layers for module in _linears(layer))
        and type(model.lm_head) is nn.Linear
        and type(model.model.embed_tokens) is nn.Embedding
    )


def _linears(layer: Any) -> list[nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    ]  # fmt: skip


@dataclass(frozen=True)
class _Layer:
    """Weights of one layer; a projection is one matrix, or several side by side where they were not fused."""

    norm_1: nn.Module | None
    attention_in: list[tuple[Tensor, Tensor | None]]
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    out: nn.Linear
    norm_2: nn.Module | None
    mlp_in: list[tuple[Tensor, Tensor | None]]
    down: nn.Linear


class LeanDecoder:
    """Prefill and decoding with the weights of `model`; give it only what `supports` accepts."""

    blocks = 4

    def __init__(self, model: Any) -> None:
        config = model.config
        self.model = model
        self.device = model.model.embed_tokens.weight.device
        self.dtype = model.model.embed_tokens.weight.dtype
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps = config.rms_norm_eps
        self.scale = self.dim**-0.5
        self.plain = self.device.type == "cpu" and self.dtype == torch.float32
        """Matrix products instead of the attention kernel: faster here for one query a row."""
        self.fused = self.plain and sum(parameter.numel() for parameter in model.parameters()) <= FUSE_BELOW
        self.layers = [self._layer(layer) for layer in model.model.layers]
        self.cos = self.sin = torch.empty(0)

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        first, second = layer.input_layernorm, layer.post_attention_layernorm
        return _Layer(
            None if self.fused else first,
            self._projection([attention.q_proj, attention.k_proj, attention.v_proj], first),
            getattr(attention, "q_norm", None),
            getattr(attention, "k_norm", None),
            attention.o_proj,
            None if self.fused else second,
            self._projection([mlp.gate_proj, mlp.up_proj], second),
            mlp.down_proj,
        )

    def _projection(self, linears: list[nn.Linear], norm: Any) -> list[tuple[Tensor, Tensor | None]]:
        if not self.fused:
            return [(linear.weight, linear.bias) for linear in linears]
        weight = torch.cat([linear.weight.detach() for linear in linears]) * norm.weight.detach()
        bias = [linear.bias.detach() if linear.bias is not None else linear.weight.new_zeros(linear.out_features) for linear in linears]
        return [(weight, torch.cat(bias) if any(linear.bias is not None for linear in linears) else None)]

    def _normed(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        if norm is not None:
            return norm(x)  # type: ignore[no-any-return]
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * size.square_().div_(x.shape[-1]).add_(self.eps).rsqrt_()

    def _rotary(self, upto: int) -> None:
        """Tables of cos and sin, signed for `_rotate`, for positions below `upto`."""
        if self.cos.shape[0] >= upto:
            return
        position = torch.arange(max(upto, 2 * self.cos.shape[0]), device=self.device)[None]
        cos, sin = self.model.model.rotary_emb(torch.empty(0, dtype=self.dtype, device=self.device), position)
        half = self.dim // 2
        self.cos, self.sin = cos[0, :, None], torch.cat((-sin[0, :, None, :half], sin[0, :, None, half:]), -1)

    def _hidden(self, token_N: Tensor, position_N: Tensor, attend: Attend) -> Tensor:
        """Last hidden states before the final norm, N × D."""
        cos, sin = self.cos[position_N], self.sin[position_N]
        x = F.embedding(token_N, self.model.model.embed_tokens.weight)
        split = self.heads + self.groups
        for index, layer in enumerate(self.layers):
            h = self._normed(x, layer.norm_1)
            parts = [F.linear(h, weight, bias) for weight, bias in layer.attention_in]
            if len(parts) == 1:
                heads = parts[0].view(len(x), -1, self.dim)
                qk, v = heads[:, :split], heads[:, split:]
            else:
                q, k, v = (part.view(len(x), -1, self.dim) for part in parts)
                qk = torch.cat((q, k), 1)
            if layer.q_norm is not None and layer.k_norm is not None:
                qk = torch.cat((layer.q_norm(qk[:, : self.heads]), layer.k_norm(qk[:, self.heads :])), 1)
            qk = torch.addcmul(qk * cos, torch.roll(qk, self.dim // 2, -1), sin)
            mixed = attend(index, qk[:, : self.heads], qk[:, self.heads :], v)
            x = _add_linear(x, mixed, layer.out)
            h = self._normed(x, layer.norm_2)
            parts = [F.linear(h, weight, bias) for weight, bias in layer.mlp_in]
            gate, up = parts if len(parts) == 2 else parts[0].chunk(2, -1)
            x = _add_linear(x, F.silu(gate).mul_(up), layer.down)
        return x

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.model.lm_head(self.model.model.norm(hidden))  # type: ignore[no-any-return]

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Prefix, Tensor]:
        ids, lengths = pad(prompts, self.device)
        n_prompts, columns = ids.shape
        self._rotary(columns)
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (part.view(n_prompts, columns, -1, self.dim).transpose(1, 2) for part in (q, k, v))
            keys.append(k)
            values.append(v)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.groups)
            return mixed.transpose(1, 2).reshape(n_prompts * columns, -1)

        position = torch.arange(columns, device=self.device).repeat(n_prompts)
        hidden = self._hidden(ids.view(-1), position, attend)
        last = hidden.view(n_prompts, columns, -1)[torch.arange(n_prompts, device=self.device), lengths - 1]
        return Prefix(keys, values, lengths.tolist()), self._logits(last)

    def step(self, blocks: Sequence[Block], token_R: Tensor, position_R: Tensor) -> Tensor:
        for block in blocks:
            block.reserve()
        self._rotary(max(block.filled for block in blocks) + 1)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            mixed = []
            first = 0
            for block in blocks:
                after, at = first + len(block), block.filled
                keys, values = block.keys[layer][: len(block)], block.values[layer][: len(block)]
                keys[:, :, at] = k[first:after]
                values[:, :, at] = v[first:after]
                grouped = q[first:after].reshape(len(block), self.groups, -1, self.dim)
                mixed.append(self._mix(grouped, keys[:, :, : at + 1], values[:, :, : at + 1], block.mask()))
                first = after
            return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

        hidden = self._hidden(token_R, position_R, attend)
        for block in blocks:
            block.filled += 1
        return self._logits(hidden)

    def _mix(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of one query a row: q B × groups × (heads / groups) × dim, keys and values B × groups × C × dim."""
        if mask is not None:
            mask = mask[..., : keys.shape[2]]
        if self.plain:
            score = torch.matmul(q * self.scale, keys.transpose(-1, -2))
            if mask is not None:
                score += mask
            mixed = torch.matmul(score.softmax(-1), values)
        else:
            if mask is not None:
                mask = mask.expand(-1, 1, q.shape[2], -1)
            mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return mixed.reshape(len(q), -1)


def _add_linear(x: Tensor, h: Tensor, linear: nn.Linear) -> Tensor:
    if linear.bias is None:
        return torch.addmm(x, h, linear.weight.t())
    return x + linear(h)
