"""Continuous batching: which rows run side by side.

A problem's prompt is read once and its keys and values are repeated for its samples. Problems are admitted by falling
prompt length, several at a time, whenever enough rows are free; finished rows leave at once. All of this is a function
of the requests and the settings, so a shard comes out the same whoever computes it and however often it was begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from qup.config.schema import Sampling
from qup.errors import Interrupted
from qup.generation.block import Block, Row, merge
from qup.generation.decoder import Decoder
from qup.generation.draw import Draw, uniforms
from qup.generation.records import Clamped, Sample, stream_key

PREFILL_TOKENS = 8192
"""Padded prompt tokens read at once: bounds activation memory."""
ROOM = 16
"""Columns reserved for responses when rows are admitted; grows as needed."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Unit:
    """Samples of one request that are admitted together."""

    request: int
    samples: range


def units_of(clamped: Clamped, rows: int, repeat: bool) -> list[Unit]:
    """In order of admission: longest prompt first, then the caller's order; at most `rows` samples each.

    Without `repeat` one sample stands for all: greedy ones are equal.
    """
    order = sorted(range(len(clamped.requests)), key=lambda index: -len(clamped.requests[index].prompt_ids))
    units = []
    for index in order:
        n = clamped.requests[index].n if repeat else 1
        units += [Unit(index, range(first, min(first + rows, n))) for first in range(0, n, rows)]
    return units


class Schedule:
    """One run of `sample`; see there."""

    def __init__(self, decoder: Decoder, clamped: Clamped, sampling: Sampling, stop_ids: Sequence[int]) -> None:
        self.decoder, self.clamped, self.sampling = decoder, clamped, sampling
        self.draw = Draw(sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)
        self.stops = np.zeros(decoder.vocabulary, dtype=bool)
        self.stops[list(stop_ids)] = True
        self.units = units_of(clamped, sampling.rows, repeat=not self.draw.greedy)
        self.seed = sampling.seed or 0
        self.blocks: list[Block] = []
        self.found: dict[int, dict[int, Sample]] = {}
        self.ready: list[int] = []

    def run(self, stopping: Callable[[], bool] = _never) -> Iterator[tuple[int, list[Sample]]]:
        with torch.inference_mode():
            while self.units or self.blocks:
                if stopping():
                    raise Interrupted("asked to stop; finished shards are kept")
                while self._may_admit():
                    self._admit()
                if self.blocks:
                    self._step()
                while self.ready:
                    index = self.ready.pop(0)
                    yield index, self._collect(index)

    @property
    def free(self) -> int:
        return self.sampling.rows - sum(len(block) for block in self.blocks)

    def _may_admit(self) -> bool:
        if not self.units:
            return False
        wanted = max(len(self.units[0].samples), int(self.sampling.rows * self.decoder.refill))
        return self.free >= wanted or not self.blocks

    def _admit(self) -> None:
        """Reads the next prompts and makes a block of their samples, each with its first token drawn."""
        batch: list[Unit] = []
        free, columns = self.free, len(self._prompt(self.units[0]))
        while self.units and len(self.units[0].samples) <= free and (not batch or (len(batch) + 1) * columns <= PREFILL_TOKENS):
            batch.append(self.units.pop(0))
            free -= len(batch[-1].samples)
        prefix, logits_PV = self.decoder.prefill([self._prompt(unit) for unit in batch])
        rows, prompt_B = [], []
        for place, unit in enumerate(batch):
            request = self.clamped.requests[unit.request]
            for sample in unit.samples:
                key = stream_key(self.seed, request.id, sample)
                rows.append(Row(unit.request, sample, key, len(request.prompt_ids), self.clamped.room[unit.request]))
                prompt_B.append(place)
        block = Block.from_prefix(rows, prompt_B, prefix, ROOM)
        done = self._record(rows, logits_PV[torch.tensor(prompt_B, device=logits_PV.device)])
        self._finish(block, done)
        if not len(block):
            return
        self.blocks.append(block)
        if len(self.blocks) > self.decoder.blocks:
            self._merge()

    def _merge(self) -> None:
        """Joins the two neighbours that are smallest together."""
        sizes = [len(first) + len(second) for first, second in zip(self.blocks, self.blocks[1:])]
        at = sizes.index(min(sizes))
        self.blocks[at : at + 2] = [merge(self.blocks[at], self.blocks[at + 1], ROOM)]

    def _prompt(self, unit: Unit) -> tuple[int, ...]:
        return self.clamped.requests[unit.request].prompt_ids

    def _step(self) -> None:
        rows = [row for block in self.blocks for row in block.rows]
        device = self.decoder.device
        token_R = torch.tensor([row.token_ids[-1] for row in rows]).to(device)
        position_R = torch.tensor([row.n_prompt + len(row.token_ids) - 1 for row in rows]).to(device)
        done = self._record(rows, self.decoder.step(self.blocks, token_R, position_R))
        if not done.any():
            return
        first = 0
        for block in self.blocks:
            after = first + len(block)
            self._finish(block, done[first:after])
            first = after
        self.blocks = [block for block in self.blocks if len(block)]

    def _record(self, rows: list[Row], logits_RV: torch.Tensor) -> np.ndarray:
        """Draws the next token of each row, notes it, and says which rows are done."""
        key_R = np.fromiter((row.key for row in rows), dtype=np.uint64, count=len(rows))
        length_R = np.fromiter((len(row.token_ids) for row in rows), dtype=np.int64, count=len(rows))
        limit_R = np.fromiter((row.limit for row in rows), dtype=np.int64, count=len(rows))
        uniform_R = torch.from_numpy(uniforms(key_R, length_R)).to(logits_RV.device)
        token_R, logprob_R = self.draw(logits_RV, uniform_R)
        tokens = token_R.cpu().numpy()
        for row, token, logprob in zip(rows, tokens.tolist(), logprob_R.tolist()):
            row.token_ids.append(token)
            row.logprob_T.append(logprob)
        return self.stops[tokens] | (length_R + 1 >= limit_R)

    def _finish(self, block: Block, done_B: np.ndarray) -> None:
        gone = np.flatnonzero(done_B).tolist()
        for at in gone:
            row = block.rows[at]
            finish = "stop" if self.stops[row.token_ids[-1]] else "length"
            samples = self.found.setdefault(row.unit, {})
            samples[row.sample] = Sample(tuple(row.token_ids), tuple(row.logprob_T), finish)
            if len(samples) == (1 if self.draw.greedy else self.clamped.requests[row.unit].n):
                self.ready.append(row.unit)
        if gone:
            block.drop(gone)

    def _collect(self, index: int) -> list[Sample]:
        samples = self.found.pop(index)
        n = self.clamped.requests[index].n
        return [samples[0]] * n if self.draw.greedy else [samples[sample] for sample in range(n)]
