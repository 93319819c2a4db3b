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
    """Weights of one layer. A projection is one matrix, or several side by side where they were not fused; `out` and `down` are transposed."""

    norm_1: nn.Module | None
    attention_in: list[tuple[Tensor, Tensor | None]]
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    out: tuple[Tensor, Tensor | None]
    norm_2: nn.Module | None
    mlp_in: list[tuple[Tensor, Tensor | None]]
    down: tuple[Tensor, Tensor | None]


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
        self.eps = torch.tensor(config.rms_norm_eps)
        self.scale = self.dim**-0.5
        self.nought = torch.zeros(1, 1, 1)
        self.plain = self.device.type == "cpu" and self.dtype == torch.float32
        """Matrix products instead of the attention kernel: faster here for one query a row."""
        self.fused = self.plain and sum(parameter.numel() for parameter in model.parameters()) <= FUSE_BELOW
        self.refill = 0.5 if self.fused else 0.25
        self.vocabulary = model.lm_head.weight.shape[0]
        self.head = model.lm_head.weight.detach() * model.model.norm.weight.detach() if self.fused else None
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
            (attention.o_proj.weight.t(), attention.o_proj.bias),
            None if self.fused else second,
            self._projection([mlp.gate_proj, mlp.up_proj], second),
            (mlp.down_proj.weight.t(), mlp.down_proj.bias),
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
        return x * torch.addcmul(self.eps, size, size, value=1 / x.shape[-1]).rsqrt_()

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
        if self.head is None:
            return self.model.lm_head(self.model.model.norm(hidden))  # type: ignore[no-any-return]
        return F.linear(self._normed(hidden, None), self.head, self.model.lm_head.bias)

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
        first = 0
        spans = []
        for block in blocks:
            block.reserve()
            spans.append((block, first, first + len(block), len(block), block.mask()))
            first += len(block)
        self._rotary(max(block.filled for block in blocks) + 1)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            mixed = []
            for block, first, after, count, mask in spans:
                upto = block.filled + 1
                keys, values = block.keys[layer][:count, :, :upto], block.values[layer][:count, :, :upto]
                keys[:, :, -1] = k[first:after]
                values[:, :, -1] = v[first:after]
                mixed.append(self._mix(q[first:after].reshape(count, self.groups, -1, self.dim), keys, values, mask))
            return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

        hidden = self._hidden(token_R, position_R, attend)
        for block in blocks:
            block.filled += 1
        return self._logits(hidden)

    def _mix(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of one query a row: q B × groups × (heads / groups) × dim, keys and values B × groups × C × dim."""
        if mask is not None:
            mask = mask[..., : keys.shape[2]]
        if not self.plain:
            mask = mask if mask is None else mask.expand(-1, 1, q.shape[2], -1)
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).reshape(len(q), -1)
        score = torch.baddbmm(self.nought, q.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), beta=0, alpha=self.scale)
        if mask is not None:
            score.view(*q.shape[:3], -1).add_(mask)
        return torch.bmm(score.softmax(-1), values.flatten(0, 1)).view(len(q), -1)


def _add_linear(x: Tensor, h: Tensor, linear: tuple[Tensor, Tensor | None]) -> Tensor:
    weight, bias = linear
    added = torch.addmm(x, h, weight)
    return added if bias is None else added.add_(bias)
