"""Selection by quality and compatibility together: what each λ chooses, and what it teaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qup.analysis.findings.contrasts import Contrast, Outcomes, adjusted, apart, contrast, selections
from qup.analysis.findings.summaries import Summary
from qup.analysis.results.arms import Group, Run
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import number
from qup.analysis.statistics.estimates import Estimate

ENDS = ("reward", "perplexity")


@dataclass(frozen=True)
class Chosen:
    """The selection that was best on the problems kept apart, and what it does on the others."""

    arm: str
    dev_total: float
    against_random: Contrast | None
    decided: bool
    why: str


@dataclass(frozen=True)
class Frontier:
    """All selections from one pool, for one student under one setting."""

    student: str
    setting: str
    stream: str
    points: tuple[Summary, ...]
    """Ordered: random, then reward (λ = 0), rising λ, perplexity (λ = ∞), then the others."""
    used_reward: str
    other_rewards: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    """To both ends and to random, adjusted over this grid."""
    chosen: Chosen | None
    within_correlation: float
    """Pooled within-problem correlation of reward and NLL a token over the pool."""
    equal: tuple[tuple[str, ...], ...]
    """Arms that chose the same traces."""

    def contrast(self, arm: str, other: str) -> Contrast | None:
        """The comparison of two of its arms."""
        return next((one for one in self.contrasts if one.arm == arm and one.other == other), None)

    def total(self, arm: str) -> Estimate | None:
        return next((point.total for point in self.points if point.arm == arm), None)


def frontiers(groups: Sequence[Group], summarised: Sequence[Summary], outcomes: Outcomes, shelf: Shelf, margin: float) -> list[Frontier]:
    """One for every student, setting and stream of which more than one selection was tried."""
    made = []
    for group in groups:
        pools = {runs[0].arm.pool: runs[0] for runs in group.arms.values()}
        for run in pools.values():
            arms = selections(group, run)
            if any(runs[0].arm.selects for runs in arms.values()) and len(arms) > 1:
                made.append(_frontier(group, arms, summarised, outcomes, shelf, margin))
    return made


def _order(run: Run) -> tuple[int, float, str]:
    arm = run.arm
    if not arm.selects:
        return (0, 0.0, arm.label)
    if arm.selection == "reward":
        return (1, 0.0, arm.label)
    if arm.selection == "joint":
        return (1, 1e-9 + float(arm.weight or 0.0), arm.label)
    if arm.selection == "perplexity":
        return (1, math.inf, arm.label)
    return (2, 0.0, arm.label)


def _frontier(
    group: Group, arms: dict[str, list[Run]], summarised: Sequence[Summary], outcomes: Outcomes, shelf: Shelf, margin: float
) -> Frontier:
    ordered = sorted(arms.values(), key=lambda runs: _order(runs[0]))
    by_label = {one.arm: one for one in summarised if one.student == group.student and one.run.setting.key == group.setting.key}
    random = next((runs for runs in ordered if not runs[0].arm.selects), None)
    references = [random] if random else []
    references += [runs for runs in ordered if runs[0].arm.selection in ENDS]
    family = [
        contrast(group, runs[0].arm.label, runs, other, "reference", outcomes)
        for runs in ordered
        for other in references
        if other is not runs and not (other is not random and runs is random)
    ]
    used = next((runs[0].arm.reward for runs in ordered if runs[0].arm.reward), None) or ""
    rewards = list(dict.fromkeys(name for runs in ordered for name in runs[0].cell.stages.get("reward", {})))
    tied = [number(shelf.metrics(run.cell, "stream").get("within_correlation")) for runs in ordered for run in runs]
    finite = [one for one in tied if math.isfinite(one)]
    points = tuple(by_label[runs[0].arm.label] for runs in ordered if runs[0].arm.label in by_label)
    settled = tuple(adjusted(family, margin))
    return Frontier(
        group.student, group.setting.label, ordered[0][0].arm.stream, points, used, tuple(name for name in rewards if name != used),
        settled, _choose(group, ordered, random, outcomes), float(np.mean(finite)) if finite else math.nan, _equal(ordered, shelf),
    )  # fmt: skip


def _choose(group: Group, ordered: Sequence[Sequence[Run]], random: Sequence[Run] | None, outcomes: Outcomes) -> Chosen | None:
    """The arm with the highest total on the problems kept apart; it was not chosen on what is reported."""
    totals: dict[str, float] = {}
    for runs in ordered:
        found = [outcome for run in runs if (outcome := outcomes.get(run.cell.label)) is not None and outcome.dev]
        if found:
            totals[runs[0].arm.label] = float(
                np.mean([np.mean([answers.average for answers in outcome.dev.values()]) for outcome in found])
            )
    if len(totals) < 2:
        return None
    best = max(totals, key=lambda label: (totals[label], label))
    if random is None:
        return Chosen(best, totals[best], None, False, "there is no random arm to compare with")
    lead = random[0].arm.label
    if best == lead:
        return Chosen(best, totals[best], None, False, "random selection was best on the problems kept apart, so no rule is recommended")
    runs = next(one for one in ordered if one[0].arm.label == best)
    (reported,) = adjusted([contrast(group, best, runs, random, "reference", outcomes)], 1.0)
    (dev,) = adjusted([contrast(group, best, runs, random, "reference", outcomes, apart)], 1.0)
    if reported.total is None:
        return Chosen(best, totals[best], reported, False, reported.fault)
    decided = reported.total.low > 0
    why = (
        "it is better than random selection on the other problems too"
        if decided
        else "on the other problems it can't be told from random selection"
    )
    if reported.total.high < 0:
        why = "on the other problems it is worse than random selection"
    if dev.total is not None and dev.total.low <= 0 and not decided:
        why += ", nor on these"
    return Chosen(best, totals[best], reported, decided, why)


def _equal(ordered: Sequence[Sequence[Run]], shelf: Shelf) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = {}
    for runs in ordered:
        digest = shelf.metrics(runs[0].cell, "stream").get("traces_digest")
        if digest:
            groups.setdefault(str(digest), []).append(runs[0].arm.label)
    return tuple(tuple(labels) for labels in groups.values() if len(labels) > 1)
