"""A step's examples as tensors: which rows this rank computes, micro-batch by micro-batch.

Every rank works out the whole step, so the step's token count N is known to all without a word between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qup.training.examples import Example
from qup.training.packing import Cost, Row, align, pack, pad


@dataclass(frozen=True)
class Layouter:
    """How examples become rows. `longest_row` bounds a packed row unless an example is longer."""

    world_size: int
    micro_batch: int
    packing: bool
    longest_row: int
    fixed: bool = False
    cost: Cost = Cost()
    in_order: bool = False
    """Micro-batches keep the order of the data, as mean-of-means normalisations need: which examples share one matters."""


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass of one rank; `length` tokens each."""

    rows: tuple[Row, ...]
    length: int


@dataclass(frozen=True)
class Step:
    """One optimizer step: `micro_batches[i][rank]`, equally many on every rank."""

    micro_batches: tuple[tuple[MicroBatch, ...], ...]
    n_targets: int
    n_tokens: int
    mass: float
    """Weight times target tokens, over all examples: what the loss is divided by."""

    @property
    def n_computed(self) -> int:
        """Positions that go through the model, fill and dummies included."""
        return sum(max(1, len(part.rows)) * part.length for turn in self.micro_batches for part in turn)

    @property
    def n_rows(self) -> int:
        return sum(len([row for row in part.rows if row]) for turn in self.micro_batches for part in turn)


def lay_out(batch: Sequence[Example], how: Layouter) -> Step:
    """The rows of one optimizer step."""
    lengths = [example.length for example in batch]
    if how.packing:
        turns = _packed(lengths, how)
    elif how.in_order:
        turns = _in_order(lengths, how)
    else:
        turns = tuple(
            tuple(MicroBatch(tuple((i,) for i in rows), length) for rows, length in turn)
            for turn in pad(lengths, how.world_size, how.micro_batch)
        )
    return Step(turns, sum(example.n_targets for example in batch), sum(lengths), sum(example.mass for example in batch))


def _packed(lengths: Sequence[int], how: Layouter) -> tuple[tuple[MicroBatch, ...], ...]:
    layout = pack(lengths, how.world_size, how.longest_row, how.cost, how.fixed)
    per_rank = [layout.rows[rank :: how.world_size] for rank in range(how.world_size)]
    turns = range(0, len(per_rank[0]), how.micro_batch)
    return tuple(tuple(MicroBatch(rows[start : start + how.micro_batch], layout.length) for rows in per_rank) for start in turns)


def _in_order(lengths: Sequence[int], how: Layouter) -> tuple[tuple[MicroBatch, ...], ...]:
    """Dealt to ranks one by one, as a distributed sampler does, then cut into micro-batches."""
    per_rank = [range(len(lengths))[rank :: how.world_size] for rank in range(how.world_size)]
    turns = []
    for start in range(0, len(per_rank[0]), how.micro_batch):
        parts = [mine[start : start + how.micro_batch] for mine in per_rank]
        turns.append(tuple(MicroBatch(tuple((i,) for i in part), align(max((lengths[i] for i in part), default=1))) for part in parts))
    return tuple(turns)


@dataclass(frozen=True)
class Tensors:
    """One forward pass: ids and positions (B rows × R tokens), and where the N targets are."""

    input_ids: Tensor
    position_ids: Tensor
    source_N: Tensor
    """Flat index of the position that predicts each target."""
    target_N: Tensor
    weight_N: Tensor | None = None
    """Of each target's loss; None: 1 each."""
    borders: Tensor | None = None
    """Where all rows lie behind each other: where each example or fill begins, and the end (int32)."""
    longest: int = 0
    """Tokens of the longest stretch between borders."""

    def to(self, device: torch.device) -> Tensors:
        return replace(
            self, **{name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)}
        )

    @property
    def stretches(self) -> dict[str, Any]:
        """What a variable-length kernel would else read from the positions in every layer, waiting for the GPU each time."""
        if self.borders is None:
            return {}
        return {"cu_seq_lens_q": self.borders, "cu_seq_lens_k": self.borders, "max_length_q": self.longest, "max_length_k": self.longest}


def collate(batch: Sequence[Example], part: MicroBatch, fill: int, flat: bool = False) -> Tensors:
    """Tensors of one micro-batch. `fill` is the id at unused positions; no target ever lies there.

    Positions restart at 0 with every example and with the fill behind the last one, which is what keeps examples of a row
    from seeing each other. A row of one example needs no restart behind it: causal attention never looks there, and
    without one the kernel's own causal path is taken. `flat` puts all rows behind each other in one, for
    variable-length attention kernels.
    """
    n_rows, length = max(1, len(part.rows)), part.length
    input_ids = torch.full((n_rows, length), fill, dtype=torch.long)
    position_ids = torch.arange(length).repeat(n_rows, 1)
    several = flat or any(len(row) > 1 for row in part.rows)
    sources: list[Tensor] = []
    targets: list[Tensor] = []
    weights: list[Tensor] = []
    for at, row in enumerate(part.rows):
        offset = 0
        for i in row:
            example = batch[i]
            end = offset + example.length
            ids = torch.from_numpy(example.ids).long()
            input_ids[at, offset:end] = ids
            position_ids[at, offset:end] = torch.arange(example.length)
            first = max(example.n_prompt, 1)
            sources.append(torch.arange(at * length + offset + first - 1, at * length + end - 1))
            targets.append(ids[first:])
            weights.append(torch.full((example.n_targets,), example.weight))
            offset = end
        if several and offset:
            position_ids[at, offset:] = torch.arange(length - offset)
    empty = torch.empty(0, dtype=torch.long)
    shape = (1, n_rows * length) if flat else (n_rows, length)
    borders, longest = None, 0
    if flat:
        starts = (position_ids.flatten() == 0).nonzero().flatten()
        borders = torch.cat((starts, torch.tensor([n_rows * length]))).int()
        longest = int(borders.diff().max())
    return Tensors(
        input_ids.view(shape),
        position_ids.view(shape),
        torch.cat(sources) if sources else empty,
        torch.cat(targets) if targets else empty,
        torch.cat(weights) if any(example.weight != 1 for example in batch) and weights else None,
        borders,
        longest,
    )


def tensors_of(batch: Sequence[Example], step: Step, rank: int, fill: int, flat: bool = False) -> Iterator[Tensors]:
    """This rank's micro-batches, in turn."""
    for turn in step.micro_batches:
        yield collate(batch, turn[rank], fill, flat)
