"""Findings in sentences, with their numbers."""

from __future__ import annotations

import math

from qup.analysis.findings.contrasts import Contrast
from qup.analysis.findings.numbers import difference, joined, plain, points, probability
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
from qup.analysis.statistics.estimates import SEEDS_FOR_RECIPE
from qup.analysis.statistics.power import Needed

MIXED = "mixed"
EXPLAINED = {
    SHOWN: "the reward is higher and the total lower, p after Holm below 0.05.",
    REVERSED: "the reward is higher and so is the total, p after Holm below 0.05.",
    EQUAL: "the reward is higher, and the total is equal within the margin.",
    OPEN: "p after Holm is 0.05 or more, and the difference is not shown to lie within the margin either.",
    NO_PREMISE: "the paradox starts from a higher reward, and the reward is not shown to be higher here.",
    MIXED: "arms or settings of this student have different verdicts.",
    RESTORED: "keeping the student's style gives a higher total than refining freely, p after Holm below 0.05, and a lower perplexity.",
    NOT_RESTORED: "keeping the student's style does not give a higher total than refining freely, or not a lower perplexity.",
    UNKNOWN: "results are missing, or the arms cannot be compared.",
}
"""What each word of the rule means, in a sentence; `statistics.md` has the rule itself."""


def tested(one: Contrast, digits: int = 1) -> str:
    """A difference of totals with all that is known of it, each part called what it is."""
    if one.total is None:
        return "not measured"
    alone = " (95 % interval of this comparison alone)" if math.isfinite(one.total.low) else ""
    return f"{points(one.total, digits)}{alone}, {corrected(one)}"


def corrected(one: Contrast) -> str:
    """`p = 0.031 after Holm over 20 comparisons`."""
    return f"{probability(one.p_holm)} after Holm over {one.family} comparison{'s' if one.family != 1 else ''}"


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
}
_TAUGHT = {"worse": "teaches worse", "better": "teaches better", "equally": "teaches equally within the margin", "undecided": "undecided"}


def finding(one: Finding) -> str:
    """One arm against the baseline."""
    if one.contrast.total is None or one.outcome == UNKNOWN:
        why = one.contrast.fault or one.reward.fault or "results are missing"
        return f"{one.arm} against {one.baseline}: not measured ({why})."
    lower = one.outcome == NO_PREMISE and one.reward.estimate.high < 0
    said = "reward is lower, so the paradox has no premise here" if lower else _WORDS.get(one.outcome) or _TAUGHT[one.teaches]
    reward = "" if one.reward.fault else f"reward {difference(one.reward.estimate)} (95 % interval), "
    text = f"{one.arm} against {one.baseline}: {said}; {reward}total {tested(one.contrast)}"
    if OPEN in (one.outcome, one.teaches):
        decides = what_decides(one.contrast.needed, one.contrast.total.seeds)
        text += f"; {decides}" if decides else ""
    return text + "."


def causal(one: Causal) -> str:
    """Style-aligned against refined."""
    if one.outcome == UNKNOWN:
        why = one.contrast.fault or one.perplexity.fault or "results are missing"
        return f"{one.arm} against {one.refined}: not measured ({why})."
    said = {RESTORED: "utility is restored", NOT_RESTORED: "utility is not restored", OPEN: "undecided whether utility is restored"}[
        one.outcome
    ]
    text = f"{one.arm} against {one.refined}: {said}; total {tested(one.contrast)}, perplexity × {_ratio(one)}"
    if one.outcome == OPEN and one.contrast.total is not None:
        decides = what_decides(one.contrast.needed, one.contrast.total.seeds)
        text += f"; {decides}" if decides else ""
    if one.baseline is not None and one.baseline.total is not None:
        text += f". Against {one.baseline.other}: {points(one.baseline.total)} ({_beside(one.baseline_outcome)})"
    return text + "."


def causal_brief(one: Causal) -> str:
    """Style-aligned against refined in a few words."""
    if one.outcome == UNKNOWN:
        return f"{one.arm} minus {one.refined}: not measured"
    return f"{one.arm} minus {one.refined}: {points(one.contrast.total)}, {corrected(one.contrast)}, perplexity × {_ratio(one)}"


def _ratio(one: Causal) -> str:
    return plain(math.exp(min(one.perplexity.estimate.value, 700)))


def _beside(outcome: str) -> str:
    return {SHOWN: "below it", REVERSED: "above it", EQUAL: "equal within the margin", OPEN: "undecided"}.get(outcome, outcome)


def headline(one: Verdict) -> str:
    """The verdict on a student in a sentence."""
    if not one.findings:
        return "No Oracle arm is compared with the baseline, so the paradox is not tested here."
    arms = list(dict.fromkeys(finding.arm for finding in one.findings))
    baseline = one.findings[0].baseline
    named = joined(arms)
    settings = list(dict.fromkeys(finding.setting for finding in one.findings))
    under = (
        f", under {joined(settings)} alike" if len(settings) == 2 else f", under all {len(settings)} settings" if len(settings) > 2 else ""
    )
    many = len(arms) > 1
    score, teach, they = ("score", "teach", "they") if many else ("scores", "teaches", "it")
    match one.outcome:
        case "shown":
            text = f"The paradox is shown: {named} {score} higher than {baseline} and {teach} worse{under}."
        case "reversed":
            text = f"The reverse of the paradox: {named} {score} higher than {baseline} and {teach} better{under}."
        case "no difference":
            text = f"No paradox: {named} {score} higher than {baseline} and {teach} equally well{under}."
        case "undecided":
            text = f"Undecided: {named} {score} higher than {baseline}; whether {they} {teach} better or worse is not settled{under}."
        case "premise fails":
            lower = all(finding.reward.estimate.high < 0 for finding in one.findings)
            said = f"{score} lower" if lower else f"{'are' if many else 'is'} not shown to score higher"
            text = f"The paradox cannot show here, for its premise fails: {named} {said} than {baseline}{under}."
        case "mixed":
            text = f"The paradox against {baseline}: {_mixed(one)}."
        case _:
            return "The paradox is not measured yet: results are missing."
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
    return "; ".join(f"{outcome} for {joined(by_outcome[outcome])}" for outcome in order if outcome in by_outcome)


def against_base(one: Contrast) -> str:
    """Whether an arm hurt or helped its student."""
    if one.total is None:
        return ""
    if one.hurts:
        return "hurts"
    return "helps" if one.helps else "undecided"
