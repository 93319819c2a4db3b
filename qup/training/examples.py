"""The stream as token ids, and which examples each optimizer step learns from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from qup.errors import InputError

Ids = np.ndarray
"""int32, one-dimensional."""


@dataclass(frozen=True)
class Example:
    """One row of the stream: prompt, then response with its stop token, cut on the right at the length limit."""

    position: int
    """Row in the stream: the same problem in every arm of a study."""
    problem_id: str
    ids: Ids
    n_prompt: int
    truncated: bool
    weight: float = 1.0
    """Of its tokens' loss, against the other examples' of its step."""

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def n_targets(self) -> int:
        """Tokens that carry loss: the response. Nothing predicts a first token, so an empty prompt costs one."""
        return len(self.ids) - max(self.n_prompt, 1)

    @property
    def mass(self) -> float:
        """Its part in the step's divisor: weight times target tokens."""
        return self.weight * self.n_targets


@dataclass(frozen=True)
class Examples:
    """What there is to learn, and what was left out of it."""

    kept: tuple[Example, ...]
    dropped: tuple[str, ...]
    """Problem ids of the examples of which no response token is left after the cut, in stream order."""
    n_rows: int

    @property
    def n_truncated(self) -> int:
        return sum(example.truncated for example in self.kept) + len(self.dropped)


Encode = Callable[[str], Sequence[int]]


def encode_stream(stream: pa.Table, encode_prompt: Encode, encode_response: Encode, max_length: int, max_dropped: float) -> Examples:
    """Examples in stream order (columns problem_id, question, text, weight; 1 where there is no weight).

    Raises InputError where the stream is empty, where a weight is no finite number of at least 0, or where more than the share `max_dropped` of it is left without a
    response token once cut to `max_length`; it names the first of them.
    """
    if stream.num_rows == 0:
        raise InputError("the stream has no rows: nothing to train on")
    kept: list[Example] = []
    dropped: list[str] = []
    columns = [stream.column(name).to_pylist() for name in ("problem_id", "question", "text")]
    weights = stream.column("weight").to_pylist() if "weight" in stream.column_names else [1.0] * stream.num_rows
    for position, (problem_id, question, text, weight) in enumerate(zip(*columns, weights, strict=True)):
        if weight is None or not math.isfinite(weight) or weight < 0:
            raise InputError(f"the stream's row {position + 1} (problem {problem_id}) has weight {weight}; a number of at least 0 is valid")
        prompt = encode_prompt(question)
        ids = np.asarray([*prompt, *encode_response(text)], dtype=np.int32)
        example = Example(position, problem_id, ids[:max_length], len(prompt), len(ids) > max_length, weight)
        if example.n_targets < 1:
            dropped.append(problem_id)
        else:
            kept.append(example)
    if len(dropped) > max_dropped * stream.num_rows or not kept:
        shown = ", ".join(dropped[:5]) + (" …" if len(dropped) > 5 else "")
        raise InputError(
            f"trainer.max_length={max_length}: {len(dropped)} of {stream.num_rows} examples have no response token left ({shown}); "
            f"trainer.max_dropped={max_dropped:g} allows {100 * max_dropped:g} %: raise trainer.max_length"
        )
    return Examples(tuple(kept), tuple(dropped), stream.num_rows)


def order_of(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Stream rows in the order of an epoch: a function of seed and epoch alone, so that all arms learn in the same order."""
    return np.random.default_rng([seed, epoch]).permutation(n_rows)


def batches_of(examples: Examples, batch_size: int, epochs: int, seed: int, drop_last: bool, max_steps: int | None) -> list[list[Example]]:
    """The examples of each optimizer step.

    Batches are cut out of the stream's rows before dropped ones are taken out, so step s holds the same problems in
    every arm; an arm that lost one has a smaller batch. Raises InputError where no step is left.
    """
    by_row = {example.position: example for example in examples.kept}
    steps: list[list[Example]] = []
    for epoch in range(epochs):
        order = order_of(examples.n_rows, seed, epoch)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            if drop_last and len(rows) < batch_size:
                continue
            steps.append([by_row[row] for row in rows.tolist() if row in by_row])
    steps = [batch for batch in steps if batch]
    if max_steps is not None:
        steps = steps[:max_steps]
    if not steps:
        raise InputError(
            f"trainer.batch_size={batch_size}: the stream's {examples.n_rows} rows make no complete batch and trainer.drop_last leaves "
            f"the incomplete one out; at most {examples.n_rows} is valid"
        )
    return steps
