"""Each arm's number by every measure and every reward, also under weights on problems, as a bootstrap gives them.

Axes: A arms, P problems that all arms share, N traces of one arm, B draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.config.schema import Measure
from qup.measures import find, grace
from qup.measures.car import shifted
from qup.measures.sets import columns, combine
from qup.measures.traces import Traces
from qup.scoring.statistics import better, read_statistics, reads_steps
from qup.scoring.totals import pool_totals
from qup.store import Artifact, rows

GRACE_DRAWS = 40
"""Draws in which GRACE is computed anew; the others repeat them."""


@dataclass(frozen=True)
class ArmScores:
    """The stored scores of one arm's traces."""

    label: str
    tokens: Artifact
    """The token pass (perplexity)."""
    rewards: Mapping[str, Artifact] = field(default_factory=dict)
    measures: Mapping[str, Artifact] = field(default_factory=dict)
    """Of measures with a pass of their own, by name."""


@dataclass(frozen=True)
class Predictor:
    """One measure, or one reward, of all arms."""

    name: str
    better: str
    """high or low."""
    needs: str
    """What it is computed from: tokens, windows, gradients or reward."""
    under: Callable[[np.ndarray], np.ndarray]
    """Weights of the problems [B, P] → numbers [B, A]; NaN where an arm has none."""
    note: str = ""

    @property
    def sign(self) -> int:
        """1 where higher suits better, else −1."""
        return 1 if self.better == "high" else -1


@dataclass(frozen=True)
class Predictors:
    """All of them, over the problems that the arms share."""

    arms: tuple[str, ...]
    problems: int
    left_out: int
    """Problems that some arm lacks."""
    found: tuple[Predictor, ...]


def predictors(arms: Sequence[ArmScores], measures: Mapping[str, Measure], car_reward: Callable[[Measure], str | None]) -> Predictors:
    """Of all arms at once: LARK and ASLEC-CASL compare a trace with the other arms' traces.

    A measure or reward that some arm lacks is left out, as is one without a number for some arm.
    """
    ids = [pool_totals(arm.tokens)["problem_id"].combine_chunks() for arm in arms]
    shared = _shared(ids)
    place = [rows.positions(mine, shared) for mine in ids]
    everything = len(pc.unique(pa.chunked_array(ids))) if ids else 0
    made: list[Predictor] = []
    for name, measure in measures.items():
        one = _own_pass(arms, name, measure, shared) if find(measure.kind).needs != "tokens" else None
        if one is None and find(measure.kind).needs == "tokens":
            reward = car_reward(measure) if measure.kind == "car" else None
            one = _of_tokens(arms, name, measure, reward, place, len(shared))
        made += [one] if one is not None else []
    for name in dict.fromkeys(name for arm in arms for name in arm.rewards):
        if all(name in arm.rewards for arm in arms):
            parts = [_rewards(arm, name, where)[:, None] for arm, where in zip(arms, place, strict=True)]
            made.append(Predictor(f"reward ({name})", "high", "reward", _weighted(parts, place, Measure())))
    return Predictors(tuple(arm.label for arm in arms), len(shared), everything - len(shared), tuple(made))


def _shared(ids: Sequence[pa.Array]) -> pa.Array:
    """Problems of all arms, in the first arm's order."""
    shared = pc.unique(ids[0])
    for other in ids[1:]:
        shared = shared.filter(pc.is_in(shared, pc.unique(other)))
    return shared


def _of_tokens(
    arms: Sequence[ArmScores], name: str, measure: Measure, reward: str | None, place: Sequence[np.ndarray], problems: int
) -> Predictor | None:
    if measure.kind == "car" and not (reward and all(reward in arm.rewards for arm in arms)):
        return None
    parts = [read_statistics(arm.tokens, measure if reads_steps(measure) else None) for arm in arms]
    whole = {field: np.concatenate([getattr(part, field) for part in parts]) for field in vars(parts[0]) if field != "problem_N"}
    note = ""
    if reward is not None:
        raw = np.concatenate([_rewards(arm, reward, where) for arm, where in zip(arms, place, strict=True)])
        whole["reward_N"], least = shifted(raw)
        note = f"rewards of {reward} lifted by {-least:.3g}, for CAR wants none below 0" if least < 0 else ""
    problem_N = np.concatenate(place)
    inside = problem_N >= 0
    traces = Traces.of(problem_N, whole)
    found = columns(traces.take(np.flatnonzero(inside)), measure)
    cols = np.full((len(problem_N), found.shape[1]), np.nan)
    cols[inside] = found
    bounds = np.cumsum([len(part) for part in parts])[:-1]
    if any(not np.isfinite(part).all(1).any() for part in np.split(cols, bounds)):
        return None
    return Predictor(name, better(measure), "tokens", _weighted(np.split(cols, bounds), place, measure), note)


def _rewards(arm: ArmScores, name: str, place: np.ndarray) -> np.ndarray:
    """Score of every trace of the arm, in the token pass's order; NaN where it does not fit."""
    table = arm.rewards[name].table("scores", ["problem_id", "candidate", "score", "fits"])
    where = rows.match(pool_totals(arm.tokens).select(["problem_id", "candidate"]), table)
    score = np.where(np.asarray(table["fits"]), np.asarray(table["score"], float), np.nan)
    return np.where(where >= 0, score[np.maximum(where, 0)], np.nan)


def _own_pass(arms: Sequence[ArmScores], name: str, measure: Measure, shared: pa.Array) -> Predictor | None:
    if not all(name in arm.measures for arm in arms):
        return None
    kind = find(measure.kind)
    tables = [arm.measures[name].table("measured", ["problem_id", "value", "gradient"]) for arm in arms]
    place = [rows.positions(table["problem_id"], shared) for table in tables]
    if kind.needs == "windows":
        parts = [np.asarray(table["value"])[:, None] for table in tables]
        if any(not np.isfinite(part).any() for part in parts):
            return None
        return Predictor(name, better(measure), kind.needs, _weighted(parts, place, Measure()))
    gradients = [np.asarray(pc.list_flatten(table["gradient"])).reshape(table.num_rows, -1) for table in tables]
    return Predictor(name, better(measure), kind.needs, _grace(gradients, place, measure))


def _weighted(parts: Sequence[np.ndarray], place: Sequence[np.ndarray], measure: Measure) -> Callable[[np.ndarray], np.ndarray]:
    """A function of means of columns: a trace weighs as much as its problem."""

    def under(weight_BP: np.ndarray) -> np.ndarray:
        made = []
        weights = np.atleast_2d(weight_BP)
        for cols, where in zip(parts, place, strict=True):
            inside = where >= 0
            alike = np.array_equal(where, np.arange(weights.shape[1]))  # the rule: no copy of B × P weights
            made.append(combine(cols[inside], measure, weights if alike else weights[:, where[inside]]))
        return np.stack(made, 1)

    return under


def _grace(gradients: Sequence[np.ndarray], place: Sequence[np.ndarray], measure: Measure) -> Callable[[np.ndarray], np.ndarray]:
    """GRACE of the problems that a draw holds; a repeated problem counts once, for it may not stand on both sides of a split."""

    def under(weight_BP: np.ndarray) -> np.ndarray:
        weights = np.atleast_2d(weight_BP)
        made = np.array(
            [[_one(rows_, where, drawn) for rows_, where in zip(gradients, place, strict=True)] for drawn in weights[:GRACE_DRAWS]]
        )
        return made[np.arange(len(weights)) % len(made)]

    def _one(rows_: np.ndarray, where: np.ndarray, drawn: np.ndarray) -> float:
        inside = (where >= 0) & (drawn[np.maximum(where, 0)] > 0) & np.isfinite(rows_).all(1)
        if len(np.unique(where[inside])) < grace.LEAST:
            return float("nan")
        return grace.score(rows_[inside], where[inside], measure.splits, measure.seed)

    return under
