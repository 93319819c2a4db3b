"""Why streams teach differently: where their surprise lies, which tokens carry it, and what it costs to adapt."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qup.analysis.results.arms import Run
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import QUARTERS, number
from qup.analysis.statistics.estimates import Estimate
from qup.analysis.statistics.means import exponential, ratio_of, shifted, unknown
from qup.errors import CorruptArtifact
from qup.store import Artifact, rows

SAMPLED = 4000
"""Traces from which the width of a quarter's interval is taken."""
TOP_TOKENS = 8
SHIFTS = 10
CURVE_POINTS = 160


@dataclass(frozen=True)
class Segments:
    """Perplexity of the four quarters of one stream."""

    student: str
    arm: str
    quarters: tuple[Estimate, ...]


def segments(run: Run, shelf: Shelf) -> Segments | None:
    """Quarter perplexities; the value is the stage's own over all traces, the interval from up to SAMPLED of them."""
    artifact = shelf.of(run.cell, "perplexity")
    if artifact is None:
        return None
    values = [number(artifact.metrics.get(name)) for name in QUARTERS]
    nll_PQ, count_PQ = _quarter_sums(artifact, shelf)
    total = number(artifact.metrics.get("n"))
    made = []
    for q, point in enumerate(values):
        if not math.isfinite(point) or point <= 0:
            made.append(unknown("no tokens"))
            continue
        log_point = math.log(point)
        if len(nll_PQ) < 2:
            made.append(exponential(shifted(unknown("no traces"), log_point, "")))
            continue
        spread = ratio_of(nll_PQ[:, q], count_PQ[:, q])
        shrink = math.sqrt(min(1.0, len(nll_PQ) / total)) if total > 0 else 1.0
        low, high = ((getattr(spread, name) - spread.value) * shrink for name in ("low", "high"))
        made.append(
            Estimate(
                point,
                math.exp(log_point + low),
                math.exp(log_point + high),
                math.nan,
                math.nan,
                math.nan,
                math.nan,
                spread.df,
                int(total),
                1,
                "t over traces",
            )
        )
    return Segments(run.student, run.arm.label, tuple(made))


def _quarter_sums(artifact: Artifact, shelf: Shelf) -> tuple[np.ndarray, np.ndarray]:
    """Σ NLL and tokens of each trace's quarters, the stop token left out: two [P, 4]."""
    nll_parts, count_parts = [], []
    seen = 0
    try:
        for batch in rows.batches(artifact, "traces", ["nll_T"], size=2000):
            column = batch.column(0)
            offsets = np.asarray(column.offsets)
            nll = np.asarray(column.values)[offsets[0] : offsets[-1]].astype(float)
            length = np.diff(offsets)
            trace = np.repeat(np.arange(len(length)), length)
            place = np.arange(len(trace)) - np.repeat(np.cumsum(length) - length, length)
            counted = place < length[trace] - 1
            quarter = place * 4 // np.maximum(length - 1, 1)[trace]
            index = (trace * 4 + quarter)[counted]
            nll_parts.append(np.bincount(index, nll[counted], len(length) * 4).reshape(-1, 4))
            count_parts.append(np.bincount(index, minlength=len(length) * 4).reshape(-1, 4))
            seen += len(length)
            if seen >= SAMPLED:
                break
    except (CorruptArtifact, OSError, ValueError, KeyError) as error:
        shelf.corrupt[f"{artifact.stage}/{artifact.key}"] = str(error)
    if not nll_parts:
        return np.zeros((0, 4)), np.zeros((0, 4))
    return np.concatenate(nll_parts), np.concatenate(count_parts).astype(float)


@dataclass(frozen=True)
class TokenLoss:
    """A token's part in one quarter."""

    token: str
    loss_share: float
    frequency: float
    mean_nll: float


@dataclass(frozen=True)
class TokenTable:
    """The tokens that carry the loss, by quarter, and how often each token occurs overall."""

    student: str
    arm: str
    quarters: tuple[tuple[TokenLoss, ...], ...]
    frequency: dict[tuple[int, str], float]


def token_table(run: Run, shelf: Shelf) -> TokenTable | None:
    """From the perplexity stage's `tokens`; None where it is not there."""
    artifact = shelf.of(run.cell, "perplexity")
    if artifact is None or not artifact.has("tokens.parquet"):
        return None
    table = shelf.table(artifact, "tokens", ("token_id", "token", "quarter", "count", "nll"))
    if table is None or table.num_rows == 0:
        return None
    ids, names = np.asarray(table["token_id"]), table["token"].to_pylist()
    quarter, count, nll = np.asarray(table["quarter"]), np.asarray(table["count"], dtype=float), np.asarray(table["nll"], dtype=float)
    quarters = []
    for q in range(1, 5):
        mine = np.flatnonzero(quarter == q)
        lead = mine[np.argsort(-nll[mine], kind="stable")[:TOP_TOKENS]]
        total, tokens = nll[mine].sum(), count[mine].sum()
        quarters.append(
            tuple(
                TokenLoss(names[i], float(nll[i] / total), float(count[i] / tokens), float(nll[i] / count[i]))
                for i in lead
                if total > 0 and count[i]
            )
        )
    width = int(ids.max()) + 1
    occurs = np.bincount(ids, count, width) / count.sum()
    named = dict(zip(ids.tolist(), names, strict=True))
    return TokenTable(run.student, run.arm.label, tuple(quarters), {(i, named[i]): float(occurs[i]) for i in sorted(named)})


@dataclass(frozen=True)
class Shift:
    """How the frequencies of tokens change from the baseline's stream to another, in percent points."""

    student: str
    arm: str
    baseline: str
    distance: float
    """Half the sum of absolute differences: the share of tokens that would have to change."""
    up: tuple[tuple[str, float], ...]
    down: tuple[tuple[str, float], ...]


def shift(table: TokenTable, baseline: TokenTable) -> Shift:
    """The largest changes in either direction."""
    tokens = sorted(set(table.frequency) | set(baseline.frequency))
    change = {token: 100 * (table.frequency.get(token, 0.0) - baseline.frequency.get(token, 0.0)) for token in tokens}
    ordered = sorted(tokens, key=lambda token: (-change[token], token))
    up = tuple((token[1], change[token]) for token in ordered[:SHIFTS] if change[token] > 0)
    down = tuple((token[1], change[token]) for token in reversed(ordered[-SHIFTS:]) if change[token] < 0)
    return Shift(table.student, table.arm, baseline.arm, sum(abs(one) for one in change.values()) / 2, up, down)


@dataclass(frozen=True)
class Curve:
    """Training NLL by optimizer step, thinned."""

    student: str
    setting: str
    arm: str
    cell: str
    step: tuple[float, ...]
    nll: tuple[float, ...]
    excess: float
    """Adaptation cost: token mean of the training NLL above that of the last 5 % of steps, in nats a token."""


def curve(run: Run, shelf: Shelf) -> Curve | None:
    """The training curve of one cell; None where its log is not there."""
    artifact = shelf.of(run.cell, "train")
    if artifact is None or not artifact.has("steps.jsonl"):
        return None
    try:
        lines = artifact.file("steps.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.strip()]
        points = [(float(one["step"]), float(one["nll"]), float(one.get("targets") or 1)) for one in entries if one.get("nll") is not None]
    except (CorruptArtifact, OSError, ValueError, KeyError, TypeError) as error:
        shelf.corrupt[f"train/{artifact.key}"] = str(error)
        return None
    if not points:
        return None
    step, nll, weight = (np.array(axis) for axis in zip(*points, strict=True))
    edge = max(1, math.ceil(0.05 * len(step)))
    excess = float(np.average(nll, weights=weight) - np.average(nll[-edge:], weights=weight[-edge:]))
    bins = np.array_split(np.arange(len(step)), min(CURVE_POINTS, len(step)))
    means = [(float(step[b].mean()), float(np.average(nll[b], weights=weight[b]))) for b in bins]
    return Curve(
        run.student, run.setting.label, run.arm.label, run.cell.label, tuple(x for x, _ in means), tuple(y for _, y in means), excess
    )


def one_of_each(runs: Sequence[Run], most: int) -> list[Run]:
    """The first replicate of every arm of every student, whatever the training setting; at most so many."""
    seen: dict[tuple[str, str], Run] = {}
    for run in runs:
        if not run.cell.is_base:
            seen.setdefault((run.student, run.arm.label), run)
    return list(seen.values())[:most]
