"""Paired differences of arms: on the same problems, replicate by replicate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qup.analysis.results.arms import Group, Run, matching_base
from qup.analysis.results.outcomes import Answers, Outcome, difference_in, drawn_apart
from qup.analysis.statistics.estimates import (
    SEEDS_FOR_RECIPE,
    Components,
    Estimate,
    coefficients,
    components,
    estimate,
    holm,
    of_components,
)
from qup.analysis.statistics.moderation import moderated
from qup.analysis.statistics.power import Design, Needed, design_of, detectable, needed

Outcomes = Mapping[str, Outcome | None]
"""Cell label → its evaluation."""
Part = Callable[[Outcome], Mapping[str, Answers]]
POINTS = 100.0
"""Largest absolute difference of a problem's accuracy."""


def reported(outcome: Outcome) -> Mapping[str, Answers]:
    return outcome.benchmarks


def apart(outcome: Outcome) -> Mapping[str, Answers]:
    return outcome.dev


@dataclass(frozen=True)
class Contrast:
    """One arm minus another in accuracy, at equal settings."""

    student: str
    setting: str
    setting_key: str
    arm: str
    other: str
    question: str
    """baseline, base, causal, or reference (of a selection grid)."""
    total: Estimate | None
    pooled: Estimate | None = None
    benchmarks: Mapping[str, Estimate] | None = None
    design: Design | None = None
    parts: Components | None = None
    """Variance components of `total`; None where nothing varies."""
    fault: str = ""
    """Why there is no estimate."""
    p_holm: float = math.nan
    family: int = 0
    """Comparisons that Holm's procedure corrects together."""
    detectable: float = math.nan
    """Smallest true difference found with 80 % power at the family's first Holm step."""
    needed: Needed | None = None

    @property
    def hurts(self) -> bool:
        return self.total is not None and self.total.value < 0 and self.p_holm < 0.05

    @property
    def helps(self) -> bool:
        return self.total is not None and self.total.value > 0 and self.p_holm < 0.05


def paired(first: Sequence[Run], second: Sequence[Run], outcomes: Outcomes) -> list[tuple[Outcome, Outcome]]:
    """Evaluations of the replicates that both arms have; against base, each with the checkpoint it started from."""
    pairs = []
    for run in first:
        mine = outcomes.get(run.cell.label)
        other = _partner(run, second)
        theirs = outcomes.get(other.cell.label) if other is not None else None
        if mine is not None and theirs is not None:
            pairs.append((mine, theirs))
    return pairs


def partners(first: Sequence[Run], second: Sequence[Run]) -> list[tuple[Run, Run]]:
    """The replicates that both arms have."""
    found = [(run, _partner(run, second)) for run in first]
    return [(run, other) for run, other in found if other is not None]


def _partner(run: Run, others: Sequence[Run]) -> Run | None:
    if others and others[0].cell.is_base:
        return matching_base(run, others)
    return next((other for other in others if other.replicate == run.replicate), None)


@dataclass(frozen=True)
class Differences:
    """Per-problem differences of each benchmark, [P, M] in points, with the sampling noise of one sample of both arms."""

    strata: dict[str, np.ndarray]
    noise: dict[str, float]
    samples: int


def differences(pairs: Sequence[tuple[Outcome, Outcome]], part: Part = reported) -> Differences | str:
    """The differences of all replicates, or why they can't be had."""
    if not pairs:
        return "no replicate of both is evaluated"
    lead = part(pairs[0][0])
    if not lead:
        return "no problems"
    for first, second in pairs:
        for outcome in (first, second):
            fault = drawn_apart(pairs[0][0], outcome) or difference_in(lead, part(outcome))
            if fault:
                return fault
    strata = {name: np.stack([part(a)[name].share_P - part(b)[name].share_P for a, b in pairs], axis=1) for name in lead}
    noise = {name: float(np.mean([part(a)[name].noise + part(b)[name].noise for a, b in pairs])) for name in lead}
    return Differences(strata, noise, min(answers.samples for answers in lead.values()))


def contrast(
    group: Group, arm: str, first: Sequence[Run], second: Sequence[Run], question: str, outcomes: Outcomes, part: Part = reported
) -> Contrast:
    """One paired difference with its intervals; p-values are adjusted later, over the family."""
    other = second[0].arm.label if second else ""
    empty = Contrast(group.student, group.setting.label, group.setting.key, arm, other, question, None)
    templates = {str(run.cell.get("model.template")) for run in (*first, *second)}
    found = (
        differences(paired(first, second, outcomes), part)
        if len(templates) == 1
        else f"prompt templates differ ({', '.join(sorted(templates))})"
    )
    if isinstance(found, str):
        return replace(empty, fault=found)
    strata = list(found.strata.values())
    sizes = [len(values_PM) for values_PM in strata]
    macro = coefficients(sizes)
    return replace(
        empty,
        total=estimate(strata, macro, bound=POINTS),
        pooled=estimate(strata, coefficients(sizes, pooled=True), bound=POINTS),
        benchmarks={name: estimate([values_PM], np.ones(1), bound=POINTS) for name, values_PM in found.strata.items()},
        design=design_of(strata, macro, list(found.noise.values()), found.samples),
        parts=parts if (parts := components(strata, macro)).variance > 0 else None,
    )


def adjusted(contrasts: Sequence[Contrast], margin: float) -> list[Contrast]:
    """The same contrasts as one family: seed variances moderated, Holm's p-values, what each could detect, and what would
    decide it."""
    contrasts = _moderated(contrasts)
    p_values = holm([one.total.p if one.total is not None else math.nan for one in contrasts])
    known = [p for p in p_values if math.isfinite(p)]
    first_step = 0.05 / max(len(known), 1)
    still_open = 0.05 / max(sum(p >= 0.05 for p in known), 1)
    made = []
    for one, p in zip(contrasts, p_values, strict=True):
        if one.total is None or one.design is None:
            made.append(one)
            continue
        limit = detectable(one.design, first_step) if one.design.se > 0 else math.nan
        wanted = needed(one.total.value, one.design, margin, still_open) if p >= 0.05 and one.design.se > 0 else None
        made.append(replace(one, p_holm=p, family=len(known), detectable=limit, needed=wanted))
    return made


def _moderated(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Contrasts that ask the same question on the same number of seeds lend each other their seed variances."""
    made = list(contrasts)
    groups: dict[tuple[str, int], list[int]] = {}
    for index, one in enumerate(contrasts):
        if one.parts is not None and one.total is not None and one.total.seeds >= SEEDS_FOR_RECIPE:
            groups.setdefault((one.question, one.total.seeds), []).append(index)
    for indices in groups.values():
        old = [part for index in indices if (part := contrasts[index].parts) is not None]
        for index, before, parts in zip(indices, old, moderated(old), strict=True):
            one = contrasts[index]
            assert one.total is not None and one.design is not None
            total = of_components(one.total.value, parts, one.total.n, one.total.seeds)
            pooling = parts.seed_df / before.seed_df
            made[index] = replace(
                one, parts=parts, total=total, design=replace(one.design, seed=parts.seed * one.total.seeds, pooling=pooling)
            )
    return made


def baseline_of(group: Group, name: str) -> list[Run]:
    """The runs of the baseline arm: the stream of that name, chosen at random; [] where there is none."""
    named = [runs for runs in group.arms.values() if runs[0].arm.stream == name and not runs[0].arm.selects]
    exact = [runs for runs in named if runs[0].arm.label == name]
    return (exact or named or [[]])[0]


def planned(groups: Sequence[Group], bases: Sequence[Run], baseline: str, outcomes: Outcomes) -> list[Contrast]:
    """The study's planned contrasts: every arm against the baseline and against base, and style-aligned against refined.

    Selections from one pool are compared in their own grid (frontier.py) and only against base here.
    """
    made: list[Contrast] = []
    for group in groups:
        own_bases = [run for run in bases if run.student == group.student and run.arm.label == "base"]
        lead = baseline_of(group, baseline)
        for label, runs in group.arms.items():
            if lead and label != lead[0].arm.label and not (runs[0].arm.selects and len(selections(group, runs[0])) > 1):
                made.append(contrast(group, label, runs, lead, "baseline", outcomes))
            if own_bases:
                made.append(contrast(group, label, runs, own_bases, "base", outcomes))
        for aligned in _of_kind(group, "aligned"):
            for refined in _refined_for(group, aligned):
                made.append(contrast(group, aligned[0].arm.label, aligned, refined, "causal", outcomes))
    return made


def selections(group: Group, run: Run) -> dict[str, list[Run]]:
    """The arms of a group that select from the same pool as a run: the same stream, by the same Oracle."""
    return {label: runs for label, runs in group.arms.items() if runs[0].arm.pool == run.arm.pool}


def _of_kind(group: Group, kind: str) -> list[list[Run]]:
    return [runs for runs in group.arms.values() if runs[0].arm.kind == kind and not runs[0].arm.selects]


def _refined_for(group: Group, aligned: Sequence[Run]) -> list[list[Run]]:
    """Refined arms by the same Oracle, else all refined arms."""
    refined = _of_kind(group, "refined")
    same = [runs for runs in refined if runs[0].arm.oracle == aligned[0].arm.oracle]
    return same or refined
