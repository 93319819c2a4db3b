"""What a selection reads of its pools' candidates: rewards, a measure, lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.config.measured import READS_REWARD
from qup.config.views import StreamView
from qup.errors import InputError
from qup.measures import find
from qup.measures.car import shifted
from qup.measures.traces import Traces
from qup.scoring.statistics import better, read_statistics
from qup.scoring.totals import pool_totals
from qup.store import Artifact, rows

Inputs = Mapping[str, Artifact]
SHOWN = 10
"""Candidates named in a refusal."""


class Candidates(Protocol):
    """Candidates of the aligned problems. Axis N."""

    @property
    def problem_N(self) -> np.ndarray: ...
    @property
    def pool_N(self) -> np.ndarray: ...
    @property
    def candidate_N(self) -> np.ndarray: ...
    @property
    def row_N(self) -> np.ndarray:
        """Row in the pool's table."""


def read_scores(view: StreamView, inputs: Inputs, ids: pa.ChunkedArray, eligible: Candidates) -> dict[str, np.ndarray]:
    """Arguments of `select` for every eligible candidate: reward_N, cost_N, chars_N, as the rule reads them.

    NaN where a trace did not fit the reward model or has no number by the measure. InputError where a score is missing
    or no finite number, and where the measure has none for any candidate.
    """
    n = len(eligible.problem_N)
    whose = [np.flatnonzero(eligible.pool_N == number) for number in range(len(view.pools))]
    keys = [
        pa.table({"problem_id": ids.take(pa.array(eligible.problem_N[mine])), "candidate": pa.array(eligible.candidate_N[mine])})
        for mine in whose
    ]
    for name in inputs:
        read, _, pool = name.partition(".")
        if read in ("reward", "nll", "measure"):
            _refuse_others(inputs[name], inputs[f"pool.{pool}"], name)
    scores: dict[str, np.ndarray] = {}
    if view.selection.name == "shortest":
        scores["chars_N"] = _spread(
            n, whose, [_lengths(inputs[f"pool.{pool}"])[eligible.row_N[mine]] for pool, mine in zip(view.pools, whose, strict=True)]
        )
    rewards = None
    if view.selection.name in READS_REWARD or (view.measure is not None and view.measure.kind == "car"):
        rewards = _spread(n, whose, [_rewards(inputs[f"reward.{pool}"], pool, key) for pool, key in zip(view.pools, keys, strict=True)])
        if view.selection.name in READS_REWARD:
            scores["reward_N"] = rewards
    if view.measure is not None:
        scores["cost_N"] = _costs(view, inputs, eligible, whose, keys, rewards)
    return scores


def _spread(n: int, whose: list[np.ndarray], parts: list[np.ndarray]) -> np.ndarray:
    """One array over all candidates from one a pool."""
    whole = np.full(n, np.nan)
    for mine, part in zip(whose, parts, strict=True):
        whole[mine] = part
    return whole


def _costs(
    view: StreamView, inputs: Inputs, eligible: Candidates, whose: list[np.ndarray], keys: list[pa.Table], rewards: np.ndarray | None
) -> np.ndarray:
    """The measure of every candidate, turned so that lower is better."""
    measure = view.measure
    assert measure is not None
    kind = find(measure.kind)
    if kind.needs == "tokens":
        parts = [_traces(view, inputs, pool, key) for pool, key in zip(view.pools, keys, strict=True)]
        columns = {name: _spread(len(eligible.problem_N), whose, [getattr(part, name) for part in parts]) for name in vars(parts[0])}
        columns["reward_N"] = shifted(rewards)[0] if rewards is not None else columns["reward_N"]
        found = kind.module.values(Traces.of(eligible.problem_N, columns), measure)
    else:
        found = _spread(
            len(eligible.problem_N),
            whose,
            [_measured(inputs[f"measure.{pool}"], pool, key) for pool, key in zip(view.pools, keys, strict=True)],
        )
    if len(found) and np.isnan(found).all():
        raise InputError(
            f"selection.measure={measure.kind}: no candidate of the pool {'+'.join(view.pools)} has a number by it; {_why(measure.kind)}"
        )
    return found if better(measure) == "low" else -found


def _why(kind: str) -> str:
    if kind == "scas":
        return "activations were not recorded: perplexity.activation= names a module of the student's last block"
    if find(kind).reads[:1] == ("steps",):
        return "its tokenizer gives no character offsets, or every trace is one token; choose a measure without steps"
    return "every trace is empty, or none fits the reward model"


def _traces(view: StreamView, inputs: Inputs, pool: str, keys: pa.Table) -> Traces:
    assert view.measure is not None
    scored = inputs[f"nll.{pool}"]
    found = _found(pool_totals(scored), keys, f"nll.{pool}")
    traces = read_statistics(scored, view.measure).take(found)
    with np.errstate(invalid="ignore", divide="ignore"):
        _finite(traces.nll_N / traces.tokens_N, keys, f"nll.{pool}")
    return traces


def _measured(scored: Artifact, pool: str, keys: pa.Table) -> np.ndarray:
    table = scored.table("measured", ["problem_id", "candidate", "value"])
    return np.asarray(table["value"])[_found(table, keys, f"measure.{pool}")]


def _refuse_others(scored: Artifact, pool: Artifact, name: str) -> None:
    """Scores of other traces than this pool's, by the keys and digests in their manifest."""
    traces = scored.manifest.get("inputs", {}).get("traces")
    if traces is not None and traces["key"] != pool.key and traces["digest"] != pool.digest:
        raise InputError(f"{name} ({scored.stage}/{scored.key}) holds scores of candidates/{traces['key']}, not of {pool.stage}/{pool.key}")


def _lengths(pool: Artifact) -> np.ndarray:
    """Characters of every row's text."""
    parts = [np.asarray(pc.utf8_length(batch.column(0))) for batch in rows.batches(pool, "candidates", ["text"])]
    return np.concatenate(parts) if parts else np.zeros(0)


def _rewards(scored: Artifact, pool: str, keys: pa.Table) -> np.ndarray:
    table = scored.table("scores", ["problem_id", "candidate", "score", "fits"])
    found = _found(table, keys, f"reward.{pool}")
    score, fits = np.asarray(table["score"])[found], np.asarray(table["fits"])[found]
    _finite(np.where(fits, score, 0.0), keys, f"reward.{pool}")
    return np.where(fits, score, np.nan)


def _found(scored: pa.Table, keys: pa.Table, name: str) -> np.ndarray:
    found = rows.match(keys, scored)
    if (found < 0).any():
        raise InputError(f"{name}: no score for {int((found < 0).sum())} of {len(found)} candidates: {_listed(keys, found < 0)}")
    return found


def _finite(values: np.ndarray, keys: pa.Table, name: str) -> np.ndarray:
    bad = ~np.isfinite(values)
    if bad.any():
        raise InputError(f"{name}: the score of {int(bad.sum())} candidates is no finite number: {_listed(keys, bad)}")
    return values


def _listed(keys: pa.Table, marked: np.ndarray) -> str:
    """Problem and candidate of the first marked rows."""
    entries = keys.take(pa.array(np.flatnonzero(marked)[:SHOWN])).to_pylist()
    more = ", …" if marked.sum() > SHOWN else ""
    return ", ".join(f"problem {entry['problem_id']} candidate {entry['candidate']}" for entry in entries) + more
