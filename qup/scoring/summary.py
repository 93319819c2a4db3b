"""What a set of scored traces comes to: perplexities, ratios, and the tokens that carry the loss.

The stop token is left out everywhere. Token t (from 0) of T lies in quarter ⌊4t/T⌋. Definitions: PAPER.md of the
study and arXiv 2601.14249 for the rank-surprisal ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from qup.records import TOKENS, TOTALS

QUARTERS = 4
TOP = 20
"""Tokens named for each quarter."""


def flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values and lengths of a list column."""
    array = column.combine_chunks()
    offsets = np.asarray(array.offsets)
    return np.asarray(array.values)[offsets[0] : offsets[-1]], np.diff(offsets)


def totals(traces: pa.Table) -> pa.Table:
    """One row (schema TOTALS) for each row of a TRACES table."""
    nll, lengths = flat(traces["nll_T"])
    rank, _ = flat(traces["rank_T"])
    trace, _, counted = _layout(lengths)
    n = len(lengths)
    columns = {name: traces[name] for name in ("pool", "problem_id", "candidate", "n_prompt", "n_chars")}
    columns["n_tokens"] = pa.array(np.maximum(lengths - 1, 0))
    columns["nll"] = pa.array(np.bincount(trace[counted], weights=nll[counted].astype(float), minlength=n))
    columns["rank"] = pa.array(np.bincount(trace[counted], weights=rank[counted], minlength=n).astype(np.int64))
    return pa.table({name: columns[name] for name in TOTALS.names}).cast(TOTALS)


def _layout(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every token: its trace, its place in it, and whether it counts (all but each trace's last, the stop token)."""
    trace = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(trace)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return trace, place, place < lengths[trace] - 1


class Summary:
    """Adds up TRACES tables; holds sums, never the tokens."""

    def __init__(self, truncate_at: int, context: int | None = None) -> None:
        self.truncate_at, self.context = truncate_at, context
        self.n = self.empty = self.chars = self.over_context = 0
        self.kept_nll, self.kept_count, self.cut = 0.0, 0, 0
        self.stop_nll, self.stops = 0.0, 0
        self.mean_nll, self.mean_rank, self.ppl = 0.0, 0.0, 0.0
        self.ratio, self.ratios = 0.0, 0
        self.count_QV = np.zeros((QUARTERS, 0), np.int64)
        self.nll_QV = np.zeros((QUARTERS, 0))

    def add(self, traces: pa.Table) -> None:
        """Counts in a TRACES table."""
        if not traces.num_rows:
            return
        ids, lengths = flat(traces["token_ids"])
        nll = flat(traces["nll_T"])[0].astype(float)
        rank = flat(traces["rank_T"])[0].astype(float)
        trace, place, counted = _layout(lengths)
        self.stop_nll += float(nll[~counted].sum())
        self.stops += int((~counted).sum())
        if self.context is not None:
            self.over_context += int((np.asarray(traces["n_prompt"]) + lengths > self.context).sum())
        fits = place < (self.truncate_at - np.asarray(traces["n_prompt"]))[trace]
        self.cut += len(np.unique(trace[~fits]))
        self.kept_nll += float(nll[counted & fits].sum())
        self.kept_count += int((counted & fits).sum())
        self.chars += int(np.asarray(traces["n_chars"]).sum())
        trace, place, ids, nll, rank = trace[counted], place[counted], ids[counted], nll[counted], rank[counted]
        tokens = np.bincount(trace, minlength=len(lengths))
        nll_P, rank_P = np.bincount(trace, nll, len(lengths)), np.bincount(trace, rank, len(lengths))
        full = tokens > 0
        self.n += int(full.sum())
        self.empty += int((~full).sum())
        means = nll_P[full] / tokens[full]
        self.mean_nll += float(means.sum())
        self.mean_rank += float((rank_P[full] / tokens[full]).sum())
        self.ppl += float(np.exp(np.minimum(means, 700.0)).sum())
        surprising = nll_P > 0
        self.ratio += float((rank_P[surprising] / nll_P[surprising]).sum())
        self.ratios += int(surprising.sum())
        self._tokens(place * QUARTERS // np.maximum(tokens[trace], 1), ids, nll)

    def _tokens(self, quarter: np.ndarray, ids: np.ndarray, nll: np.ndarray) -> None:
        width = max(int(ids.max(initial=-1)) + 1, self.count_QV.shape[1])
        if width > self.count_QV.shape[1]:
            grow = ((0, 0), (0, width - self.count_QV.shape[1]))
            self.count_QV, self.nll_QV = np.pad(self.count_QV, grow), np.pad(self.nll_QV, grow)
        cell = quarter * width + ids
        self.count_QV += np.bincount(cell, minlength=QUARTERS * width).reshape(QUARTERS, width)
        self.nll_QV += np.bincount(cell, nll, QUARTERS * width).reshape(QUARTERS, width)

    def tokens(self, decode: Callable[[int], str]) -> pa.Table:
        """Schema TOKENS: by quarter, then by token id."""
        quarter, ids = np.nonzero(self.count_QV)
        names = {int(token): decode(int(token)) for token in np.unique(ids)}
        columns = [ids, [names[int(token)] for token in ids], quarter + 1, self.count_QV[quarter, ids], self.nll_QV[quarter, ids]]
        return pa.table([pa.array(column) for column in columns], names=TOKENS.names).cast(TOKENS)

    def metrics(self, decode: Callable[[int], str]) -> dict[str, Any]:
        """The figures, JSON-able; those that do not exist for want of tokens are None."""
        nll_Q, count_Q = self.nll_QV.sum(1), self.count_QV.sum(1)
        total, count = float(nll_Q.sum()), int(count_Q.sum())

        def ratio(above: float, below: float) -> float | None:
            return float(above / below) if below else None

        def perplexity(above: float, below: float) -> float | None:
            mean = ratio(above, below)
            return None if mean is None else float(np.exp(min(mean, 700.0)))

        return {
            "n": self.n,
            "n_empty": self.empty,
            "n_tokens": count,
            "mean_tokens": ratio(count, self.n),
            "nll": ratio(total, count),
            "ppl": perplexity(total, count),
            "ppl_mean": ratio(self.ppl, self.n),
            **{f"ppl_q{q + 1}": perplexity(nll_Q[q], count_Q[q]) for q in range(QUARTERS)},
            "ppl_truncated": perplexity(self.kept_nll, self.kept_count),
            "n_truncated": self.cut,
            "n_over_context": self.over_context if self.context is not None else None,
            "nll_per_char": ratio(total, self.chars),
            "nll_with_stop": ratio(total + self.stop_nll, count + self.stops),
            "nll_stop": ratio(self.stop_nll, self.stops),
            "rank_surprisal": ratio(self.mean_rank, self.mean_nll),
            "rank_surprisal_mean": ratio(self.ratio, self.ratios),
            "top_tokens": {f"q{q + 1}": self._top(q, decode) for q in range(QUARTERS)},
        }

    def _top(self, q: int, decode: Callable[[int], str]) -> list[dict[str, Any]]:
        """The tokens that carry most of a quarter's loss, largest first."""
        total, count = self.nll_QV[q].sum(), self.count_QV[q].sum()
        order = np.argsort(-self.nll_QV[q], kind="stable")[:TOP]
        return [
            {
                "token": decode(int(token)),
                "token_id": int(token),
                "loss_share": float(self.nll_QV[q, token] / total),
                "frequency": float(self.count_QV[q, token] / count),
                "mean_nll": float(self.nll_QV[q, token] / self.count_QV[q, token]),
            }
            for token in order
            if self.count_QV[q, token] and total > 0
        ]
