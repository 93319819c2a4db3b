"""What a stream is like before anything is trained on it: reward, perplexity, length, retention, losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.analysis.results.shelf import Shelf
from qup.analysis.statistics.estimates import Estimate
from qup.analysis.statistics.means import combined, exponential, log_ratio_difference, mean_of, ratio_of, unknown
from qup.study import Cell

QUARTERS = ("ppl_q1", "ppl_q2", "ppl_q3", "ppl_q4")


@dataclass(frozen=True)
class StreamScores:
    """Figures of one stream by problem, in the fixed set's order (axis P); of a problem's several traces, means and sums."""

    key: str
    problem_ids: pa.ChunkedArray | None = None
    reward_P: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By reward model; NaN where the trace does not fit or the score is no number."""
    nll_P: np.ndarray | None = None
    tokens_P: np.ndarray | None = None
    bad_scores: Mapping[str, int] = field(default_factory=dict)
    """By reward model: traces that fit and still have no finite score."""
    unfit: Mapping[str, int] = field(default_factory=dict)


class Streams:
    """Loads each stream's scores once."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._known: dict[tuple[Any, ...], StreamScores | None] = {}

    def of(self, cell: Cell) -> StreamScores | None:
        """The scores of a cell's stream, None where it has no stream or it is not there."""
        found = cell.key("stream")
        if found is None:
            return None
        key = (found[1], cell.key("perplexity"), *sorted(cell.stages.get("reward", {}).items()))
        if key not in self._known:
            self._known[key] = self._load(cell, found[1])
        return self._known[key]

    def _load(self, cell: Cell, key: str) -> StreamScores | None:
        ids: pa.ChunkedArray | None = None
        rewards, bad, unfit = {}, {}, {}
        for name in cell.stages.get("reward", {}):
            artifact = self.shelf.of(cell, "reward", name)
            table = None if artifact is None else self.shelf.table(artifact, "scores", ("problem_id", "score", "fits"))
            if table is None:
                continue
            score, fits = np.asarray(table["score"], dtype=float), np.asarray(table["fits"])
            rewards[name] = np.where(fits, score, np.nan)
            bad[name] = int((fits & ~np.isfinite(score)).sum())
            unfit[name] = int((~fits).sum())
            ids = table["problem_id"]
        artifact = self.shelf.of(cell, "perplexity")
        table = None if artifact is None else self._totals(artifact)
        nll = tokens = None
        if table is not None:
            nll, tokens = np.asarray(table["nll"], dtype=float), np.asarray(table["n_tokens"], dtype=float)
            ids = table["problem_id"] if ids is None else ids
        if ids is None:
            return None
        for name, values in list(rewards.items()):
            if len(values) != len(ids):
                self.shelf.corrupt[f"reward/{cell.stages['reward'][name]}"] = f"{len(values)} scores for {len(ids)} traces"
                del rewards[name]
        if nll is not None and len(nll) != len(ids):
            nll = tokens = None
        return by_problem(StreamScores(key, ids, rewards, nll, tokens, bad, unfit))

    def _totals(self, artifact: Any) -> pa.Table | None:
        if not artifact.has("totals.parquet"):
            return None
        return self.shelf.table(artifact, "totals", ("problem_id", "n_tokens", "nll"))


def by_problem(scores: StreamScores) -> StreamScores:
    """One entry a problem: the mean of its traces' rewards (NaN where one has none), the sums of NLL and of tokens.

    Traces of a problem stand side by side.
    """
    assert scores.problem_ids is not None
    ids = scores.problem_ids.combine_chunks()
    if not len(ids):
        return scores
    same = np.asarray(pc.equal(ids[1:], ids[:-1]))
    if not same.any():
        return scores
    start_P = np.flatnonzero(np.r_[True, ~same])
    count_P = np.diff(np.r_[start_P, len(ids)])

    def summed(value_N: np.ndarray) -> np.ndarray:
        return np.add.reduceat(value_N, start_P)

    return replace(
        scores,
        problem_ids=pa.chunked_array([ids.take(pa.array(start_P))]),
        reward_P={name: summed(value_N) / count_P for name, value_N in scores.reward_P.items()},
        nll_P=None if scores.nll_P is None else summed(scores.nll_P),
        tokens_P=None if scores.tokens_P is None else summed(scores.tokens_P),
    )


def perplexity(scores: StreamScores | None) -> Estimate:
    """exp(ΣNLL / Σtokens) over the stream."""
    if scores is None or scores.nll_P is None or scores.tokens_P is None:
        return unknown("no perplexity")
    return exponential(ratio_of(scores.nll_P, scores.tokens_P))


def same_problems(first: StreamScores, second: StreamScores) -> str:
    """Why two streams can't be paired; "" where they cover the same problems in the same order."""
    if first.problem_ids is None or second.problem_ids is None:
        return "a stream has no scores"
    if first.problem_ids.equals(second.problem_ids):
        return ""
    mine, other = set(first.problem_ids.to_pylist()), set(second.problem_ids.to_pylist())
    odd = sorted(mine ^ other)
    if not odd:
        return "the streams have the same problems in another order"
    return f"the streams cover different problems: {len(odd)} are in one of them only ({', '.join(odd[:5])}{', …' if len(odd) > 5 else ''})"


@dataclass(frozen=True)
class Paired:
    """A paired difference of two streams, or why there is none."""

    estimate: Estimate
    fault: str = ""


def reward_difference(pairs: list[tuple[StreamScores | None, StreamScores | None]], name: str) -> Paired:
    """Δr: mean difference of a reward model's score on the same problems; `pairs` are replicates."""
    made = []
    for first, second in _distinct(pairs):
        if first is None or second is None or name not in first.reward_P or name not in second.reward_P:
            return Paired(unknown("no scores"), f"scores of {name} are missing")
        fault = same_problems(first, second)
        if fault:
            return Paired(unknown(fault), fault)
        made.append(replace(mean_of(first.reward_P[name] - second.reward_P[name]), method="t over problems, paired"))
    return Paired(combined(made)) if made else Paired(unknown("no scores"), f"scores of {name} are missing")


def perplexity_difference(pairs: list[tuple[StreamScores | None, StreamScores | None]]) -> Paired:
    """Difference of log perplexity (nats a token) on the same problems; `pairs` are replicates."""
    made = []
    for first, second in _distinct(pairs):
        if first is None or second is None or first.nll_P is None or second.nll_P is None:
            return Paired(unknown("no perplexity"), "perplexities are missing")
        assert first.tokens_P is not None and second.tokens_P is not None
        fault = same_problems(first, second)
        if fault:
            return Paired(unknown(fault), fault)
        made.append(log_ratio_difference((first.nll_P, first.tokens_P), (second.nll_P, second.tokens_P)))
    return Paired(combined(made)) if made else Paired(unknown("no perplexity"), "perplexities are missing")


def _distinct(pairs: list[tuple[StreamScores | None, StreamScores | None]]) -> list[tuple[StreamScores | None, StreamScores | None]]:
    """Replicates that differ in their traces; a seed of training alone adds none."""
    seen: dict[tuple[str | None, str | None], tuple[StreamScores | None, StreamScores | None]] = {}
    for first, second in pairs:
        seen.setdefault((first.key if first else None, second.key if second else None), (first, second))
    return list(seen.values())


def number(value: Any) -> float:
    """A figure of a manifest as a float; NaN where there is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
