"""What an evaluated checkpoint got right: one matrix of problems by samples for each benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.analysis.results.shelf import Shelf
from qup.store import Artifact

DRAWN = {
    "template_hash": "prompt templates",
    "stop_ids": "stop ids",
    "temperature": "sampling temperatures",
    "top_p": "sampling.top_p",
    "top_k": "sampling.top_k",
    "min_p": "sampling.min_p",
    "max_new_tokens": "length limits",
}
"""What has to agree for accuracies to be comparable, and how a refusal calls it."""
COLUMNS = ("benchmark", "problem_id", "dev", "sample", "correct", "n_tokens", "finish", "verdict")


@dataclass(frozen=True)
class Answers:
    """One benchmark: `share_P` is each problem's accuracy over its k samples, in points, problems sorted by id."""

    problem_ids: tuple[str, ...]
    share_P: np.ndarray
    samples: int
    noise: float
    """Sampling variance of one sample, in squared points: the mean over problems of p(1 − p), unbiased."""

    @property
    def average(self) -> float:
        """Avg@k in points."""
        return float(self.share_P.mean())


@dataclass(frozen=True)
class Outcome:
    """An evaluation: reported benchmarks, and the problems kept apart for choosing."""

    benchmarks: Mapping[str, Answers]
    dev: Mapping[str, Answers] = field(default_factory=dict)
    responses: int = 0
    truncated: int = 0
    timeouts: int = 0
    undecided: int = 0
    """Answers that could not be told to be equal to the gold answer or not; they count as wrong."""
    no_answer: int = 0
    mean_tokens: float = float("nan")
    drawn: Mapping[str, Any] = field(default_factory=dict)
    """What the draws depended on, as the evaluation noted it: see DRAWN."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.benchmarks)


def load_outcome(shelf: Shelf, artifact: Artifact) -> Outcome | None:
    """The outcome of an `evaluate` artifact; None where its verdicts cannot be read."""
    table = shelf.table(artifact, "verdicts", COLUMNS)
    if table is None or table.num_rows == 0:
        return None
    name_N, names = _codes(table["benchmark"])
    dev_N = np.asarray(table["dev"].combine_chunks().fill_null(False))
    correct_N = np.asarray(table["correct"].combine_chunks().fill_null(False)).astype(np.int64)
    problem_N, problems = _codes(table["problem_id"])
    parts: dict[bool, dict[str, Answers]] = {False: {}, True: {}}
    for code in sorted(range(len(names)), key=lambda code: int(np.argmax(name_N == code))):
        for dev in (False, True):
            mine = (name_N == code) & (dev_N == dev)
            if mine.any():
                parts[dev][names[code]] = _answers(problem_N[mine], correct_N[mine], problems)
    tokens = pc.mean(table["n_tokens"]).as_py()
    return Outcome(
        parts[False],
        parts[True],
        responses=table.num_rows,
        truncated=_count(table["finish"], "length"),
        timeouts=_count(table["verdict"], "timeout"),
        undecided=_count(table["verdict"], "undecided"),
        no_answer=_count(table["verdict"], "no_answer"),
        mean_tokens=float(tokens) if tokens is not None else float("nan"),
        drawn=_drawn(artifact.metrics),
    )


def _drawn(metrics: Mapping[str, Any]) -> dict[str, Any]:
    noted = {**(metrics.get("sampling") or {}), **metrics}
    return {name: noted[name] for name in DRAWN if name in noted}


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices), encoded.dictionary.to_pylist()


def _count(column: pa.ChunkedArray, value: str) -> int:
    return int(pc.sum(pc.equal(column, value)).as_py() or 0)


def _answers(problem_N: np.ndarray, correct_N: np.ndarray, problems: Sequence[str]) -> Answers:
    total = np.bincount(problem_N, minlength=len(problems))
    right = np.bincount(problem_N, weights=correct_N, minlength=len(problems))
    there = np.flatnonzero(total)
    ids = [problems[int(index)] for index in there]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    index = there[order]
    share = right[index] / total[index]
    k = total[index]
    several = k > 1
    noise = (
        float((share[several] * (1 - share[several]) * k[several] / (k[several] - 1)).mean())
        if several.any()
        else float((share * (1 - share)).mean())
    )
    return Answers(tuple(ids[i] for i in order), 100 * share, int(np.median(k)), 1e4 * noise)


def difference(first: Outcome, second: Outcome) -> str:
    """Why two outcomes can't be compared problem by problem; "" where they can."""
    return drawn_apart(first, second) or difference_in(first.benchmarks, second.benchmarks)


def drawn_apart(first: Outcome, second: Outcome) -> str:
    """Why the responses of two evaluations were not drawn alike; "" where they were, or one does not say."""
    for name in DRAWN:
        mine, other = first.drawn.get(name), second.drawn.get(name)
        if mine is not None and other is not None and mine != other:
            return f"{DRAWN[name]} differ: {_short(mine)} against {_short(other)}"
    return ""


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def difference_in(first: Mapping[str, Answers], second: Mapping[str, Answers]) -> str:
    """As `difference`, of two sets of benchmarks."""
    if set(first) != set(second):
        only = sorted(set(first) ^ set(second))
        return f"benchmarks differ: {', '.join(only)} {'is' if len(only) == 1 else 'are'} in one of them only"
    for name in first:
        mine, other = set(first[name].problem_ids), set(second[name].problem_ids)
        if mine != other:
            odd = sorted(mine ^ other)
            listed = ", ".join(odd[:5]) + (", …" if len(odd) > 5 else "")
            return f"{name} has different problems: {len(odd)} are in one of them only ({listed})"
    return ""
