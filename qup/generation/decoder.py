"""What turns tokens into logits: an interface, and the way that works for any causal model of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from qup.errors import InputError
from qup.generation.block import Block, Prefix


class Decoder(Protocol):
    """A model that continues prompts; its state between calls lives in the blocks."""

    blocks: int
    """Most blocks side by side before two are merged."""
    refill: float
    """Share of the rows that has to be free before the next prompts are read: small steps want large blocks."""
    vocabulary: int
    """Entries of the logits."""
    device: torch.device

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Prefix, Tensor]:
        """Keys and values of each prompt (P), and the logits after its last token, P × V."""

    def step(self, blocks: Sequence[Block], token_R: Tensor, position_R: Tensor) -> Tensor:
        """Appends one token to every row, in the blocks' order, and returns the logits after it, R × V."""


def pad(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids flush left, P × L, and lengths P. Causal attention keeps the zeros on the right out of every prompt."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    return ids.to(device), lengths.to(device)


class GenericDecoder:
    """Any causal model whose layers keep keys and values in transformers' cache, through its own forward."""

    blocks = 1
    refill = 0.25

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.device = next(model.parameters()).device
        self.vocabulary = self.model.get_output_embeddings().weight.shape[0]
        self._last: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        config = self.model.config.get_text_config()
        layered = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if getattr(model, "_is_stateful", False) or layered or getattr(config, "is_encoder_decoder", False):
            raise InputError(
                f"sampling.backend=transformers: {type(model).__name__} keeps more than keys and values between tokens; backend=vllm is valid"
            )

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Prefix, Tensor]:
        ids, lengths = pad(prompts, self.device)
        column = torch.arange(ids.shape[1], device=self.device)
        cache = DynamicCache()
        out = self.model(
            input_ids=ids,
            attention_mask=(column < lengths[:, None]).long(),
            position_ids=column.expand_as(ids),
            cache=cache,
            use_cache=True,
        )
        keys = [layer.keys for layer in cache.layers]
        values = [layer.values for layer in cache.layers]
        last = out.logits[torch.arange(len(prompts), device=self.device), lengths - 1]
        return Prefix(keys, values, lengths.tolist()), last

    def step(self, blocks: Sequence[Block], token_R: Tensor, position_R: Tensor) -> Tensor:
        logits = []
        first = 0
        for block in blocks:
            block.reserve()
            after = first + len(block)
            out = self.model(
                input_ids=token_R[first:after, None],
                attention_mask=block.visible(block.filled + 1).to(self.device),
                position_ids=position_R[first:after, None],
                cache=_cache_over(block),
                use_cache=True,
                **self._last,
            )
            block.filled += 1
            logits.append(out.logits[:, -1])
            first = after
        return torch.cat(logits)


def _cache_over(block: Block) -> Cache:
    cache = DynamicCache()
    cache.layers = [_BlockLayer(block, layer) for layer in range(len(block.keys))]
    return cache


class _BlockLayer(DynamicLayer):
    """One layer of a block, as the model's forward sees its cache; appends in place."""

    def __init__(self, block: Block, layer: int) -> None:
        super().__init__()
        self.block, self.layer = block, layer
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows, at = len(self.block), self.block.filled
        found = []
        for tensors, new in ((self.block.keys, key_states), (self.block.values, value_states)):
            held = tensors[self.layer]
            held[:rows, :, at] = new[:, :, 0]
            found.append(held[:rows, :, : at + 1])
        return found[0], found[1]

    def get_seq_length(self, *args: Any) -> int:
        return self.block.filled

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.block.filled + int(query_length), 0
