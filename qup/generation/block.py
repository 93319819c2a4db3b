"""Keys and values of rows that were admitted together, in one piece of memory a layer.

Rows of a block share the column that is written next, so a step appends a slice instead of scattering, and prompts of
unequal length stand flush right. Columns before a row's `start` belong to nobody and are masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

GROWTH = 1.15


@dataclass
class Row:
    """One response under way."""

    unit: int
    """Which request, by its place in the caller's list."""
    sample: int
    key: int
    n_prompt: int
    limit: int
    token_ids: list[int] = field(default_factory=list)
    logprob_T: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Prefix:
    """What a prefill leaves: keys and values of each layer, P × heads × L × dim, prompts flush left."""

    keys: list[Tensor]
    values: list[Tensor]
    lengths: list[int]


class Block:
    """KV cache of `rows`, B × heads × columns × dim for each layer. Axes: row B, column C."""

    def __init__(self, rows: list[Row], keys: list[Tensor], values: list[Tensor], start_B: np.ndarray, filled: int, most: int) -> None:
        self.rows = rows
        self.keys, self.values = keys, values
        self.start_B = start_B
        self.filled = filled
        """Columns written; a step writes column `filled`."""
        self.most = most
        """Columns it may ever need."""
        self._mask: Tensor | None = None
        self._masked = False

    @classmethod
    def from_prefix(cls, rows: list[Row], prompt_B: Sequence[int], prefix: Prefix, room: int) -> Block:
        """A prompt's keys and values repeated for its rows; `prompt_B` says which prompt of the prefix a row continues."""
        longest = max(prefix.lengths)
        most = longest + max(row.limit for row in rows)
        columns = min(longest + room, most)
        start_B = np.array([longest - prefix.lengths[prompt] for prompt in prompt_B], dtype=np.int64)
        members = [[row for row, p in enumerate(prompt_B) if p == prompt] for prompt in range(len(prefix.lengths))]

        def spread(source: Tensor) -> Tensor:
            target = source.new_zeros(len(rows), source.shape[1], columns, source.shape[3])
            for prompt, group in enumerate(members):
                if group:
                    first, length = group[0], prefix.lengths[prompt]
                    target[first : group[-1] + 1, :, longest - length : longest] = source[prompt, :, :length]
            return target

        keys, values = [], []
        while prefix.keys:
            keys.append(spread(prefix.keys.pop(0)))
            values.append(spread(prefix.values.pop(0)))
        return cls(rows, keys, values, start_B, longest, most)

    def __len__(self) -> int:
        return len(self.rows)

    def mask(self) -> Tensor | None:
        """B × 1 × 1 × columns, 0 or −inf, added to attention scores; None where every column is every row's."""
        if not self._masked:
            self._mask = None
            if self.start_B.any():
                column = torch.arange(self.keys[0].shape[2])
                hidden = column < torch.from_numpy(self.start_B)[:, None]
                mask = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
                self._mask = mask.to(self.keys[0].device, self.keys[0].dtype)[:, None, None]
            self._masked = True
        return self._mask

    def visible(self, upto: int) -> Tensor:
        """B × upto, 1 where a column is the row's own."""
        return (torch.arange(upto) >= torch.from_numpy(self.start_B)[:, None]).long()

    def reserve(self) -> None:
        """Makes sure that column `filled` exists."""
        columns = self.keys[0].shape[2]
        if self.filled < columns:
            return
        wanted = min(max(int(columns * GROWTH), self.filled + 1), max(self.most, self.filled + 1))
        self._rebuild(wanted, 0, len(self.rows))

    def drop(self, gone: Sequence[int]) -> None:
        """Takes rows out; the last rows move into the holes. Memory is given back once half of it is idle."""
        left = len(self.rows) - len(gone)
        holes = sorted(row for row in gone if row < left)
        movers = sorted(set(range(left, len(self.rows))) - set(gone))
        if holes:
            into, out = torch.tensor(holes), torch.tensor(movers)
            for tensors in (self.keys, self.values):
                for tensor in tensors:
                    tensor[into.to(tensor.device), :, : self.filled] = tensor[out.to(tensor.device), :, : self.filled]
            for hole, mover in zip(holes, movers, strict=True):
                self.rows[hole] = self.rows[mover]
                self.start_B[hole] = self.start_B[mover]
        del self.rows[left:]
        self.start_B = self.start_B[:left].copy()
        self._masked = False
        if left and left <= self.keys[0].shape[0] // 2:
            lead = int(self.start_B.min())
            self._rebuild(self.keys[0].shape[2] - lead, lead, left)

    def _rebuild(self, columns: int, lead: int, rows: int) -> None:
        """New memory of that many columns and rows; `lead` columns that nobody uses are left out."""
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = old.new_zeros(rows, old.shape[1], columns, old.shape[3])
                new[:, :, : self.filled - lead] = old[:rows, :, lead : self.filled]
                tensors[layer] = new
                del old
        self.filled -= lead
        self.most -= lead
        self.start_B = self.start_B - lead
        self._masked = False


def merge(first: Block, second: Block, room: int) -> Block:
    """One block of both blocks' rows, in that order, flush right. Both are used up, layer by layer, so memory does not double."""
    filled = max(block.filled - int(block.start_B.min()) for block in (first, second))
    most = filled + max(block.most - block.filled for block in (first, second))
    columns = min(filled + room, most)
    start_B = np.concatenate([block.start_B + (filled - block.filled) for block in (first, second)])

    def join(tensors: list[list[Tensor]]) -> list[Tensor]:
        joined = []
        while tensors[0]:
            parts = [tensor_list.pop(0) for tensor_list in tensors]
            new = parts[0].new_zeros(len(start_B), parts[0].shape[1], columns, parts[0].shape[3])
            at = 0
            for block, part in zip((first, second), parts, strict=True):
                width = min(block.filled, filled)
                new[at : at + len(block), :, filled - width : filled] = part[: len(block), :, block.filled - width : block.filled]
                at += len(block)
            joined.append(new)
        return joined

    return Block([*first.rows, *second.rows], join([first.keys, second.keys]), join([first.values, second.values]), start_B, filled, most)
