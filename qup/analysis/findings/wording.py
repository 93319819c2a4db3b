"""Findings in sentences, with their numbers."""

from __future__ import annotations

import math

from qup.analysis.findings.contrasts import Contrast
from qup.analysis.findings.verdict import (
    EQUAL,
    NO_PREMISE,
    NOT_RESTORED,
    OPEN,
    RESTORED,
    REVERSED,
    SHOWN,
    UNKNOWN,
    Causal,
    Finding,
    Verdict,
)
from qup.analysis.statistics.estimates import SEEDS_FOR_RECIPE, Estimate
from qup.analysis.statistics.power import Needed

MINUS, THIN = "−", "\u202f"
"""A true minus sign, and the narrow space that parts thousands."""


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; a true minus sign."""
    if not math.isfinite(value):
        return "–"
    return f"{value:+.{digits}f}".replace("-", MINUS)


def plain(value: float | None, digits: int = 2) -> str:
    """A number, an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if digits == 0 and abs(value) < 1e15:
        return f"{value:,.0f}".replace(",", THIN).replace("-", MINUS)
    return (f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.1e}").replace("-", MINUS)


def difference(one: Estimate | None, digits: int = 2) -> str:
    """`−3.51 [−5.01, −2.00]`."""
    if one is None or not math.isfinite(one.value):
        return "not measured"
    if not math.isfinite(one.low):
        return signed(one.value, digits)
    return f"{signed(one.value, digits)} [{signed(one.low, digits)}, {signed(one.high, digits)}]"


def value(one: Estimate | None, digits: int = 2) -> str:
    """`37.06 [35.1, 39.0]`."""
    if one is None or not math.isfinite(one.value):
        return "–"
    if not math.isfinite(one.low):
        return plain(one.value, digits)
    return f"{plain(one.value, digits)} [{plain(one.low, digits)}, {plain(one.high, digits)}]"


def probability(p: float) -> str:
    """`p = 0.031`, `p < 0.001`."""
    if not math.isfinite(p):
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def what_decides(wanted: Needed | None, seeds: int) -> str:
    """What would settle an undecided comparison."""
    if wanted is None:
        return ""
    ways = []
    if wanted.problems is not None:
        ways.append(f"{wanted.problems:,} test problems".replace(",", " "))
    if wanted.samples is not None:
        ways.append(f"{wanted.samples} samples a problem")
    if wanted.seeds is not None:
        ways.append(f"{wanted.seeds} seeds")
    aim = "to find a difference of this size" if wanted.goal == "difference" else "to show that it is within the margin"
    more = "" if seeds >= SEEDS_FOR_RECIPE else f" (what more seeds would do is unknown before {SEEDS_FOR_RECIPE} were run)"
    if not ways:
        return f"no feasible number of problems, samples or seeds alone would be enough {aim}{more}"
    return f"it would take {' or '.join(ways)} {aim}{more}"


_WORDS = {
    SHOWN: "higher reward, lower utility",
    REVERSED: "higher reward, higher utility",
    EQUAL: "higher reward, equal utility within the margin",
    OPEN: "higher reward, utility undecided",
    NO_PREMISE: "reward is not shown to be higher, so the paradox has no premise here",
    UNKNOWN: "not measured yet",
}


def finding(one: Finding) -> str:
    """One Oracle arm against the baseline."""
    total = one.contrast.total
    if one.outcome == UNKNOWN:
        why = one.contrast.fault or one.reward.fault or "results are missing"
        return f"{one.arm} against {one.baseline}: not measured ({why})."
    lower = one.outcome == NO_PREMISE and one.reward.estimate.high < 0
    said = "reward is lower, so the paradox has no premise here" if lower else _WORDS[one.outcome]
    text = (
        f"{one.arm} against {one.baseline}: {said}; reward {difference(one.reward.estimate)}, "
        f"total {difference(total)} points ({probability(one.contrast.p_holm)} after Holm)"
    )
    if one.outcome == OPEN and total is not None:
        text += f"; {what_decides(one.contrast.needed, total.seeds)}"
    return text + "."


def causal(one: Causal) -> str:
    """Style-aligned against refined."""
    if one.outcome == UNKNOWN:
        why = one.contrast.fault or one.perplexity.fault or "results are missing"
        return f"{one.arm} against {one.refined}: not measured ({why})."
    said = {RESTORED: "utility is restored", NOT_RESTORED: "utility is not restored", OPEN: "undecided whether utility is restored"}[
        one.outcome
    ]
    ratio = one.perplexity.estimate
    text = (
        f"{one.arm} against {one.refined}: {said}; total {difference(one.contrast.total)} points "
        f"({probability(one.contrast.p_holm)} after Holm), perplexity × {plain(math.exp(min(ratio.value, 700)))}"
    )
    if one.outcome == OPEN and one.contrast.total is not None:
        decides = what_decides(one.contrast.needed, one.contrast.total.seeds)
        text += f"; {decides}" if decides else ""
    if one.baseline is not None and one.baseline.total is not None:
        text += f". Against {one.baseline.other}: {difference(one.baseline.total)} points ({_beside(one.baseline_outcome)})"
    return text + "."


def _beside(outcome: str) -> str:
    return {SHOWN: "below it", REVERSED: "above it", EQUAL: "equal within the margin", OPEN: "undecided"}.get(outcome, outcome)


def headline(one: Verdict) -> str:
    """The verdict on a student in a sentence."""
    if not one.findings:
        return "No Oracle arm is compared with the baseline, so the paradox is not tested here."
    arms = list(dict.fromkeys(finding.arm for finding in one.findings))
    baseline = one.findings[0].baseline
    joined = _join(arms)
    settings = list(dict.fromkeys(finding.setting for finding in one.findings))
    under = (
        f", under {_join(settings)} alike" if len(settings) == 2 else f", under all {len(settings)} settings" if len(settings) > 2 else ""
    )
    many = len(arms) > 1
    score, teach, they = ("score", "teach", "they") if many else ("scores", "teaches", "it")
    match one.outcome:
        case "shown":
            text = f"The paradox is shown: {joined} {score} higher than {baseline} and {teach} worse{under}."
        case "reversed":
            text = f"The reverse of the paradox: {joined} {score} higher than {baseline} and {teach} better{under}."
        case "no difference":
            text = f"No paradox: {joined} {score} higher than {baseline} and {teach} equally well{under}."
        case "undecided":
            text = f"Undecided: {joined} {score} higher than {baseline}; whether {they} {teach} better or worse is not settled{under}."
        case "premise fails":
            lower = all(finding.reward.estimate.high < 0 for finding in one.findings)
            said = f"{score} lower" if lower else f"{'are' if many else 'is'} not shown to score higher"
            text = f"The premise fails: {joined} {said} than {baseline}{under}."
        case "mixed":
            text = f"Mixed against {baseline}: {_mixed(one)}."
        case _:
            return "Not measured yet: results are missing."
    return text


def scope(one: Verdict) -> str:
    """What the verdict speaks of: the recipe, or the checkpoints that happen to be there."""
    if one.recipe:
        return f"{one.seeds} seeds: it speaks of the recipe."
    if not one.seeds:
        return ""
    return f"{'One seed' if one.seeds == 1 else f'{one.seeds} seeds'}: it speaks of these checkpoints, not of the recipe."


def _mixed(one: Verdict) -> str:
    """Which arms had which outcome; an arm whose settings agree is named once."""
    several = len({finding.setting for finding in one.findings}) > 1
    by_arm: dict[str, set[str]] = {}
    for finding in one.findings:
        by_arm.setdefault(finding.arm, set()).add(finding.outcome)
    by_outcome: dict[str, list[str]] = {}
    for finding in one.findings:
        name = f"{finding.arm} under {finding.setting}" if several and len(by_arm[finding.arm]) > 1 else finding.arm
        names = by_outcome.setdefault(finding.outcome, [])
        if name not in names:
            names.append(name)
    order = (SHOWN, REVERSED, EQUAL, NO_PREMISE, OPEN, UNKNOWN)
    return "; ".join(f"{outcome} for {_join(by_outcome[outcome])}" for outcome in order if outcome in by_outcome)


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def causal_brief(one: Causal) -> str:
    """Style-aligned against refined in a few words."""
    if one.outcome == UNKNOWN:
        return f"{one.arm} − {one.refined}: not measured"
    ratio = one.perplexity.estimate
    return f"{one.arm} − {one.refined}: total {difference(one.contrast.total, 1)}, perplexity × {plain(math.exp(min(ratio.value, 700)))}"


def against_base(one: Contrast) -> str:
    """Whether an arm hurt or helped its student."""
    if one.total is None:
        return ""
    if one.hurts:
        return "hurts"
    return "helps" if one.helps else "undecided"
