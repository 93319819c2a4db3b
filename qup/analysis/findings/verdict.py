"""The written rule by which a study says whether higher reward went with lower utility.

For each student, setting and Oracle arm (refined, synthesized) against the baseline, Δr being the paired difference of
the reward named beforehand and Δu that of the total:
1. *premise fails* where Δr's 95 % interval is not above 0;
2. else *shown* where Δu is below 0 after Holm, *reversed* where it is above 0;
3. else *no difference* where Δu's 90 % interval lies inside ± the margin;
4. else *undecided*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qup.analysis.findings.contrasts import Contrast, partners
from qup.analysis.results.arms import Group, Run
from qup.analysis.results.streams import Paired, Streams, perplexity_difference, reward_difference
from qup.analysis.statistics.estimates import SEEDS_FOR_RECIPE, Estimate

SHOWN, REVERSED, EQUAL, OPEN, NO_PREMISE, UNKNOWN = "shown", "reversed", "no difference", "undecided", "premise fails", "not measured"
RESTORED, NOT_RESTORED = "restored", "not restored"
TEACHES = {SHOWN: "worse", REVERSED: "better", EQUAL: "equally", OPEN: "undecided"}
"""What an outcome of the total says of an arm by itself."""
LEVEL = 0.05


@dataclass(frozen=True)
class Finding:
    """How one arm stands against another, the baseline as a rule."""

    student: str
    setting: str
    arm: str
    baseline: str
    outcome: str
    """The verdict on the paradox, of an Oracle arm against the baseline; "" for every other arm."""
    teaches: str
    """worse, better, equally or undecided; `not measured` where results are missing."""
    reward: Paired
    contrast: Contrast


@dataclass(frozen=True)
class Causal:
    """The verdict on style-aligned against refined, and beside it against the baseline."""

    student: str
    setting: str
    arm: str
    refined: str
    outcome: str
    perplexity: Paired
    """Difference of log perplexity, aligned − refined."""
    contrast: Contrast
    baseline: Contrast | None
    baseline_outcome: str


def decide(reward: Estimate | None, utility: Estimate | None, p_holm: float, margin: float) -> str:
    """The rule itself, of one arm against the baseline."""
    if utility is None or not math.isfinite(utility.value):
        return UNKNOWN
    if reward is None or not math.isfinite(reward.low):
        return UNKNOWN
    if reward.low <= 0:
        return NO_PREMISE
    return decide_utility(utility, p_holm, margin)


def decide_utility(utility: Estimate, p_holm: float, margin: float) -> str:
    """Points 2 to 4 of the rule."""
    if p_holm < LEVEL and utility.value != 0:
        return SHOWN if utility.value < 0 else REVERSED
    if -margin < utility.low90 and utility.high90 < margin:
        return EQUAL
    return OPEN


def decide_causal(utility: Estimate | None, p_holm: float, log_ppl: Estimate | None, margin: float) -> str:
    """*restored* where the total rises after Holm and perplexity falls; *not restored* where either goes the other way,
    or the total is equal within the margin; else *undecided*."""
    if utility is None or log_ppl is None or not math.isfinite(utility.value) or not math.isfinite(log_ppl.low):
        return UNKNOWN
    verdict = decide_utility(utility, p_holm, margin)
    if verdict == REVERSED and log_ppl.high < 0:
        return RESTORED
    if verdict in (SHOWN, EQUAL) or log_ppl.low > 0:
        return NOT_RESTORED
    return OPEN


def findings(groups: Sequence[Group], contrasts: Sequence[Contrast], streams: Streams, reward: str, margin: float) -> list[Finding]:
    """How every arm that is compared with the baseline, or with its pool's random selection, stands against it."""
    made = []
    for one in contrasts:
        group = next((group for group in groups if (group.student, group.setting.key) == (one.student, one.setting_key)), None)
        if one.question not in ("baseline", "reference") or group is None:
            continue
        difference = reward_difference(_stream_pairs(group.arms[one.arm], group.arms[one.other], streams), reward)
        outcome = ""
        if one.question == "baseline" and group.arms[one.arm][0].arm.kind in ("refined", "synthesized"):
            outcome = decide(None if difference.fault else difference.estimate, one.total, one.p_holm, margin)
        taught = UNKNOWN if one.total is None else TEACHES[decide_utility(one.total, one.p_holm, margin)]
        made.append(Finding(one.student, one.setting, one.arm, one.other, outcome, taught, difference, one))
    return made


def causal_findings(groups: Sequence[Group], contrasts: Sequence[Contrast], streams: Streams, margin: float) -> list[Causal]:
    """The verdict on every style-aligned arm against the refined one."""
    made = []
    for one in contrasts:
        group = next((group for group in groups if (group.student, group.setting.key) == (one.student, one.setting_key)), None)
        if one.question != "causal" or group is None:
            continue
        difference = perplexity_difference(_stream_pairs(group.arms[one.arm], group.arms[one.other], streams))
        against = next(
            (other for other in contrasts if _same_place(other, one) and other.question == "baseline" and other.arm == one.arm), None
        )
        said = UNKNOWN if against is None or against.total is None else decide_utility(against.total, against.p_holm, margin)
        outcome = decide_causal(one.total, one.p_holm, None if difference.fault else difference.estimate, margin)
        made.append(Causal(one.student, one.setting, one.arm, one.other, outcome, difference, one, against, said))
    return made


def _same_place(first: Contrast, second: Contrast) -> bool:
    return (first.student, first.setting_key) == (second.student, second.setting_key)


def _stream_pairs(first: Sequence[Run], second: Sequence[Run], streams: Streams) -> list[tuple]:
    return [(streams.of(run.cell), streams.of(other.cell)) for run, other in partners(first, second)]


@dataclass(frozen=True)
class Verdict:
    """What a study says of one student."""

    student: str
    outcome: str
    """One of the outcomes, or `mixed`."""
    findings: tuple[Finding, ...]
    causal: tuple[Causal, ...]
    seeds: int

    @property
    def recipe(self) -> bool:
        """Whether it speaks of the recipe, and not of these checkpoints alone."""
        return self.seeds >= SEEDS_FOR_RECIPE


def verdicts(found: Sequence[Finding], causal: Sequence[Causal]) -> list[Verdict]:
    """One verdict a student that has Oracle arms; arms and settings that differ make it *mixed*."""
    found = [one for one in found if one.outcome]
    students = list(dict.fromkeys([one.student for one in found] + [one.student for one in causal]))
    made = []
    for student in students:
        mine = tuple(one for one in found if one.student == student)
        outcomes = {one.outcome for one in mine}
        outcome = UNKNOWN if not outcomes else outcomes.pop() if len(outcomes) == 1 else "mixed"
        seeds = [one.contrast.total.seeds for one in mine if one.contrast.total is not None]
        made.append(Verdict(student, outcome, mine, tuple(one for one in causal if one.student == student), min(seeds, default=0)))
    return made


def over_students(made: Sequence[Verdict]) -> str:
    """Holds in k of n."""
    known = [one for one in made if one.outcome != UNKNOWN]
    if len(known) < 2:
        return ""
    count = sum(one.outcome == SHOWN for one in known)
    words = [f"shown in {count} of {len(known)} students"]
    for outcome in (REVERSED, EQUAL, OPEN, NO_PREMISE, "mixed"):
        number = sum(one.outcome == outcome for one in known)
        if number:
            words.append(f"{outcome} in {number}")
    return ", ".join(words)
