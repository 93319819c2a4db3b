"""What measures read of a scored set: the token pass's artifact reduced to sums a trace."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from qup.config.schema import Measure
from qup.measures import KINDS, find
from qup.measures.traces import Traces
from qup.scoring.summary import flat
from qup.scoring.totals import pool_totals
from qup.store import Artifact, rows

COLUMNS = ("brier", "brier_top", "question_nll", "question_tokens", "aa", "aq")


def keys(artifact: Artifact) -> pa.Table:
    """Columns pool, problem_id and candidate of a perplexity artifact, a row a trace, in the order of `read_statistics`."""
    return pool_totals(artifact).select(["pool", "problem_id", "candidate"])


def read_statistics(artifact: Artifact, measures: Measure | None = None) -> Traces:
    """Everything that measures read of a perplexity artifact, except rewards; every trace is a problem of its own.

    `measures` says how steps are taken and how many of their tokens are first ones; without it those are left out.
    """
    totals = pool_totals(artifact)
    columns = {
        "tokens_N": np.asarray(totals["n_tokens"]),
        "nll_N": np.asarray(totals["nll"]),
        "rank_N": np.asarray(totals["rank"]),
    }
    if artifact.has("statistics.parquet"):
        table = artifact.table("statistics", list(COLUMNS))
        columns |= {f"{name}_N": np.asarray(table[name], float) for name in COLUMNS}
        if measures is not None:
            columns |= _steps(artifact, measures.steps, measures.first)
    return Traces.of(np.arange(totals.num_rows), columns)


def _steps(artifact: Artifact, steps: str, first: int) -> dict[str, np.ndarray]:
    """Number of steps, of first tokens, and the nats of those; a trace whose tokenizer gave no steps has NaN."""
    counts, firsts, nats = [], [], []
    traces = rows.batches(artifact, "traces", ["nll_T"])
    borders = rows.batches(artifact, "statistics", [steps])
    for batch, border in zip(traces, borders, strict=True):
        nll, lengths = flat(pa.chunked_array([batch.column(0)]))
        start, per_trace = flat(pa.chunked_array([border.column(0)]))
        n = len(lengths)
        owner = np.repeat(np.arange(n), per_trace)
        begin = np.cumsum(lengths) - lengths
        stop = begin + np.maximum(lengths - 1, 0)
        place = begin[owner] + start
        last = np.ones(len(place), bool)
        last[:-1] = owner[1:] != owner[:-1]
        following = np.where(last, stop[owner], np.r_[place[1:], 0] if len(place) else place)
        total, nat = np.zeros(n), np.zeros(n)
        for offset in range(first):
            inside = place + offset < following
            total += np.bincount(owner[inside], minlength=n)
            nat += np.bincount(owner[inside], nll[(place + offset)[inside]].astype(float), n)
        none = per_trace == 0
        counts.append(np.where(none, np.nan, per_trace.astype(float)))
        firsts.append(np.where(none, np.nan, total))
        nats.append(np.where(none, np.nan, nat))
    if not counts:
        return {}
    return {"steps_N": np.concatenate(counts), "first_N": np.concatenate(firsts), "first_nll_N": np.concatenate(nats)}


def reads_steps(measure: Measure) -> bool:
    """Whether a measure asks where steps begin."""
    return "steps" in KINDS[measure.kind].reads


def better(measure: Measure) -> str:
    """Which end of a measure suits a learner: high or low."""
    return measure.better or find(measure.kind).better
