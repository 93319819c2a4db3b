"""What would have told us: every measure and reward as a predictor of measured utility over a student's arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qup.analysis.findings.contrasts import Outcomes, adjusted, contrast
from qup.analysis.results.arms import Group, Run
from qup.analysis.results.outcomes import Outcome, difference
from qup.analysis.results.predictors import ArmScores, Predictor, predictors
from qup.analysis.results.provenance import gpus_of
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import number
from qup.analysis.statistics.correlation import FEWEST_ARMS
from qup.analysis.statistics.estimates import SEEDS_FOR_RECIPE
from qup.analysis.statistics.ranking import pairs, partial, picked, resampled, rightly, tau_b
from qup.config.fingerprint import build
from qup.config.schema import Measure
from qup.pipeline import Ref
from qup.store import Artifact
from qup.study import Study

DRAWS = 400
SUBSETS = 60
"""Draws of n problems, for how many problems are enough."""
LEAST_ARMS = 3
"""With two arms there is one pair, and no order."""


@dataclass(frozen=True)
class Span:
    """A value with its 95 % interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, value: float, draws_B: np.ndarray) -> Span:
        """Percentiles of the draws that have a number."""
        sound = draws_B[np.isfinite(draws_B)]
        if len(sound) < 20:
            return cls(value)
        low, high = np.percentile(sound, (2.5, 97.5))
        return cls(value, float(low), float(high))


@dataclass(frozen=True)
class At:
    """A measure over so many problems: means over draws of them."""

    problems: int
    tau: float
    regret: float


@dataclass(frozen=True)
class Judged:
    """One measure judged for one student under one setting."""

    measure: str
    better: str
    value_A: tuple[float, ...]
    tau: Span
    """Kendall's τ_b with utility over the decided pairs, 1 where it orders all of them rightly."""
    right: float
    """Share of the decided pairs ordered rightly; half a tie."""
    given_length: float
    """Partial τ_b given length; NaN for length itself."""
    pick: str
    """The arm it would have picked; several where they tie."""
    regret: Span
    """Points of utility that following it costs against the best arm."""
    seconds: float
    gpu_hours: float
    at: tuple[At, ...]
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """All measures for one student under one setting."""

    student: str
    setting: str
    arms: tuple[str, ...]
    utility_A: tuple[float, ...]
    decided: int
    undecided: int
    """Pairs of arms that the study can't tell apart; they count in nothing."""
    problems: int
    measures: tuple[Judged, ...]
    fault: str = ""

    @property
    def claimed(self) -> bool:
        """Whether there are arms enough to say anything beyond the numbers."""
        return len(self.arms) >= FEWEST_ARMS


def judgements(study: Study, groups: Sequence[Group], outcomes: Outcomes, shelf: Shelf, seed: int = 0) -> list[Judgement]:
    """One for every student and setting with at least three evaluated arms."""
    made = []
    for group in groups:
        arms = {label: [run for run in runs if outcomes.get(run.cell.label) is not None] for label, runs in group.arms.items()}
        scored = {label: found for label, runs in arms.items() if runs and (found := _scores(label, runs[0], shelf)) is not None}
        if len(scored) >= LEAST_ARMS:
            made.append(_judge(study, group, {label: arms[label] for label in scored}, list(scored.values()), outcomes, shelf, seed))
    return made


def _scores(label: str, run: Run, shelf: Shelf) -> ArmScores | None:
    """The scores of an arm's first replicate; None where its traces were not passed through the student."""
    tokens = shelf.of(run.cell, "perplexity")
    if tokens is None or not tokens.has("totals.parquet"):
        return None

    def named(column: str) -> dict[str, Artifact]:
        found = {name: shelf.of(run.cell, column, name) for name in run.cell.stages.get(column) or {}}
        return {name: artifact for name, artifact in found.items() if artifact is not None}

    return ArmScores(label, tokens, named("reward"), named("measure"))


def measures_of(run: Run) -> dict[str, Measure]:
    """The measures that a cell configures; those of a study from before there were any are what its pass can give."""
    configured = run.cell.get("measure") or {
        "mean_logprob": {"kind": "mean_logprob"},
        "rank_surprisal": {"kind": "rank_surprisal"},
        "length": {"kind": "length"},
    }
    return {name: build(Measure, settings) for name, settings in configured.items()}


def _judge(
    study: Study, group: Group, arms: Mapping[str, list[Run]], scores: list[ArmScores], outcomes: Outcomes, shelf: Shelf, seed: int
) -> Judgement:
    lead = next(iter(arms.values()))[0]
    found = {label: [outcome for run in runs if (outcome := outcomes[run.cell.label]) is not None] for label, runs in arms.items()}
    empty = Judgement(group.student, group.setting.label, tuple(arms), (), 0, 0, 0, ())
    first = next(iter(found.values()))[0]
    if fault := next((why for several in found.values() for one in several if (why := difference(first, one))), ""):
        return Judgement(**{**vars(empty), "fault": fault})
    rewards = list(lead.cell.get("reward") or {})
    reward = lead.cell.get("verdict.reward") or (rewards[0] if rewards else None)
    every = predictors(scores, measures_of(lead), lambda measure: measure.reward or reward)
    rng = np.random.default_rng([seed, len(arms)])
    utility_A = _utility(list(found.values()))
    utility_BA = _drawn(list(found.values()), rng)
    weight_BP = resampled(rng, every.problems, DRAWS)
    decided_Q = _decided(group, arms, outcomes)
    length = next((one for one in every.found if _kind(lead, one.name) == "length"), None)
    whole = np.ones((1, every.problems))
    length_A = None if length is None else length.sign * length.under(whole)[0]
    told = [
        _one(one, every.problems, whole, weight_BP, utility_A, utility_BA, decided_Q, tuple(arms), None if one is length else length_A, rng)
        for one in every.found
    ]
    costs = [_cost(study, arms, one, shelf) for one in every.found]
    measures = tuple(
        Judged(**{**vars(one), "seconds": seconds, "gpu_hours": hours}) for one, (seconds, hours) in zip(told, costs, strict=True)
    )
    decided = int(decided_Q.sum())
    return Judgement(
        group.student,
        group.setting.label,
        tuple(arms),
        tuple(utility_A.tolist()),
        decided,
        len(decided_Q) - decided,
        every.problems,
        measures,
    )


def _kind(run: Run, name: str) -> str:
    return str(run.cell.get(f"measure.{name}.kind") or name)


def _one(
    one: Predictor, problems: int, whole: np.ndarray, weight_BP: np.ndarray, utility_A: np.ndarray, utility_BA: np.ndarray,
    decided_Q: np.ndarray, arms: tuple[str, ...], length_A: np.ndarray | None, rng: np.random.Generator,
) -> Judged:  # fmt: skip
    plain_A = one.under(whole)[0]
    value_A, value_BA = one.sign * plain_A, one.sign * one.under(weight_BP)
    tau = float(tau_b(value_A[None], utility_A[None], decided_Q)[0])
    best = int(np.argmax(utility_A))
    regret = float(utility_A[best] - picked(value_A[None], utility_A[None])[0])
    given = math.nan
    if length_A is not None:
        with_length = (float(tau_b(x[None], length_A[None], decided_Q)[0]) for x in (value_A, utility_A))
        given = partial(tau, *with_length)
    top = value_A == np.nanmax(value_A) if np.isfinite(value_A).any() else np.zeros(len(arms), bool)
    return Judged(
        one.name, one.better, tuple(plain_A.tolist()), Span.of(tau, tau_b(value_BA, utility_BA, decided_Q)),
        rightly(value_A, utility_A, decided_Q), given, ", ".join(arm for arm, chosen in zip(arms, top, strict=True) if chosen),
        Span.of(regret, utility_BA[:, best] - picked(value_BA, utility_BA)), math.nan, math.nan,
        _sizes(one, problems, utility_A, decided_Q, rng), one.note,
    )  # fmt: skip


def _sizes(one: Predictor, problems: int, utility_A: np.ndarray, decided_Q: np.ndarray, rng: np.random.Generator) -> tuple[At, ...]:
    """τ and regret over 50, 100, 200 … problems, up to all of them but not all."""
    made = []
    size = 50
    while size < problems:
        weight_BP = np.zeros((SUBSETS, problems))
        for row in weight_BP:
            row[rng.permutation(problems)[:size]] = 1
        value_BA = one.sign * one.under(weight_BP)
        tau_B = tau_b(value_BA, np.broadcast_to(utility_A, value_BA.shape), decided_Q)
        regret_B = utility_A.max() - picked(value_BA, np.broadcast_to(utility_A, value_BA.shape))
        made.append(At(size, _mean(tau_B), _mean(regret_B)))
        size *= 2
    return tuple(made)


def _mean(values: np.ndarray) -> float:
    sound = values[np.isfinite(values)]
    return float(sound.mean()) if len(sound) else math.nan


def _utility(found: Sequence[Sequence[Outcome]]) -> np.ndarray:
    """Total of every arm in points: mean over replicates of the mean over benchmarks."""
    return np.array([np.mean([np.mean([answers.average for answers in one.benchmarks.values()]) for one in several]) for several in found])


def _drawn(found: Sequence[Sequence[Outcome]], rng: np.random.Generator) -> np.ndarray:
    """Totals [B, A] under resampled problems, the same for all arms, and resampled seeds where an arm has three or more."""
    names = list(found[0][0].benchmarks)
    seeds = [
        resampled(rng, len(several), DRAWS) / len(several)
        if len(several) >= SEEDS_FOR_RECIPE
        else np.full((DRAWS, len(several)), 1 / len(several))
        for several in found
    ]
    total_BA = np.zeros((DRAWS, len(found)))
    for name in names:
        size = len(found[0][0].benchmarks[name].share_P)
        count_BP = resampled(rng, size, DRAWS) / size
        for arm, several in enumerate(found):
            share_PM = np.stack([one.benchmarks[name].share_P for one in several], 1)
            total_BA[:, arm] += ((count_BP @ share_PM) * seeds[arm]).sum(1) / len(names)
    return total_BA


def _decided(group: Group, arms: Mapping[str, list[Run]], outcomes: Outcomes) -> np.ndarray:
    """Marks the pairs of arms whose totals differ: the 95 % interval of the paired difference leaves 0 out."""
    labels = list(arms)
    first, second = pairs(len(labels))
    family = [
        contrast(group, labels[a], arms[labels[a]], arms[labels[b]], "reference", outcomes) for a, b in zip(first, second, strict=True)
    ]
    return np.array([one.total is not None and (one.total.low > 0 or one.total.high < 0) for one in adjusted(family, 1.0)])


def _cost(study: Study, arms: Mapping[str, list[Run]], one: Predictor, shelf: Shelf) -> tuple[float, float]:
    """Seconds and GPU-hours of the stages that gave it for all arms, those included whose scores were gathered."""
    column, name = {"tokens": ("perplexity", ""), "reward": ("reward", one.name.partition("(")[2].rstrip(")"))}.get(
        one.needs, ("measure", one.name)
    )
    refs: dict[Ref, None] = {}
    for runs in arms.values():
        ref = runs[0].cell.key(column, name)
        if ref is not None:
            refs |= {ref: None} | {parent: None for parent in study.nodes.get(ref, ()) if parent.kind == ref.kind}
    found = [artifact for ref in refs if (artifact := shelf.get(*ref)) is not None and not artifact.manifest.get("adopted_from")]
    seconds = [number(artifact.manifest.get("seconds")) for artifact in found]
    return float(np.nansum(seconds)), float(
        np.nansum([s * gpus_of(artifact.manifest) for s, artifact in zip(seconds, found, strict=True)]) / 3600
    )


def sentence(one: Judgement) -> str:
    """What a reader should take away."""
    place = f"{one.student}, {one.setting}" if one.setting else one.student
    if one.fault:
        return f"{place}: not judged, {one.fault}."
    known = [measure for measure in one.measures if math.isfinite(measure.regret.value)]
    if not known:
        return f"{place}: no measure has a number for every arm."
    counted = f"{one.decided} of {one.decided + one.undecided} pairs of {len(one.arms)} arms can be told apart"
    if not one.claimed:
        return f"{place}: {counted}; below {FEWEST_ARMS} arms nothing is claimed, the numbers are shown only."
    if not one.decided:
        return f"{place}: {counted}, so no measure can be judged."
    least = min(measure.regret.value for measure in known)
    best = [measure for measure in known if measure.regret.value == least]
    names = ", ".join(measure.measure for measure in best[:3]) + (f" and {len(best) - 3} more" if len(best) > 3 else "")
    length = next((measure for measure in known if measure.measure == "length"), None)
    beside = (
        ""
        if length is None
        else f"; picking the shortest costs {length.regret.value:.1f}"
        if length.better == "low"
        else f"; picking the longest costs {length.regret.value:.1f}"
    )
    doubt = (
        "" if any(math.isfinite(m.tau.low) and m.tau.low > 0 for m in best) else ", though its order of the arms can't be told from chance"
    )
    return f"{place}: following {names} costs {least:.1f} points against the best arm{doubt}{beside}. {counted[0].upper()}{counted[1:]}."
