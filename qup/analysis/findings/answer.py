"""The plain answer: what to train each student on, and what the study could have seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qup.analysis.findings.contrasts import Contrast
from qup.analysis.findings.frontier import Frontier
from qup.analysis.findings.numbers import bounds, joined, plain, points, signed, value
from qup.analysis.findings.summaries import Summary
from qup.analysis.findings.survey import Survey
from qup.analysis.findings.wording import corrected, headline, tested


@dataclass(frozen=True)
class Answer:
    """What a study says to do with one student."""

    student: str
    take: str
    """Arm to train on, its setting behind it where there are several; "" where none is shown to be better than the baseline."""
    sentence: str
    more: tuple[str, ...] = ()
    """What bears on it: the closest arm, those that are worse, the untuned student, the highest total."""


def answers(survey: Survey) -> list[Answer]:
    """One for every student, in the study's order."""
    return [answer(survey, student) for student in survey.students]


def told(survey: Survey) -> list[str]:
    """The answers in lines for a terminal: each student's, then whether the paradox showed."""
    lines = []
    verdicts = {one.student: one for one in survey.verdicts}
    for one in answers(survey):
        lines.append(f"{one.student}: {one.sentence}")
        if one.student in verdicts:
            lines.append(f"{one.student}: {headline(verdicts[one.student])}")
    return lines


def answer(survey: Survey, student: str) -> Answer:
    """From the paired differences of totals, p after Holm."""
    trained = _trained(survey, student)
    compared = [one for one in survey.contrasts if one.student == student and one.question == "baseline"]
    measured = [one for one in compared if one.total is not None]
    grids = [one for one in survey.frontiers if one.student == student]
    if not trained:
        return Answer(student, "", "Not answered yet: nothing is trained and evaluated.")
    if not compared:
        said = " ".join(f"{_place(one, grids)}{advice(one)}." for one in grids)
        return Answer(student, _chosen(grids), said or _nothing_to_compare(survey, student), _untuned(survey, student))
    if not measured:
        return Answer(student, "", f"Not answered yet: no arm can be compared with {survey.baseline}.", tuple(_faults(compared)))
    more = [f"{_place(one, grids)}{advice(one)}." for one in grids]
    more += [*_worse(measured), *_untuned(survey, student), *_highest(survey, student)]
    better = sorted((one for one in measured if one.helps), key=lambda one: -_value(one))
    own = _own(survey, student)
    if better:
        first, also = better[0], [_named(one, measured) for one in better[1:]]
        assert first.total is not None
        said = (
            f"Train on {_named(first, measured)}: {signed(first.total.value, 1)} points over {own}{bounds(first.total, 1)} "
            f"(95 % interval of this comparison alone), {corrected(first)}."
        )
        said += _higher(survey, first)
        return Answer(student, _named(first, measured), said, (*([f"Better too: {joined(also)}."] if also else []), *more))
    limits = [one.detectable for one in measured if math.isfinite(one.detectable)]
    seen = ""
    if limits:
        of = "" if len(limits) == len(measured) else f" in {len(limits)} of {len(measured)} comparisons, the others do not tell"
        seen = f"; the study could have seen a gain of {plain(max(limits), 1)} points (found four times in five){of}"
    waits = [one for one in compared if one.total is None]
    pending = f" {len(waits)} of {len(compared)} comparisons wait for results." if waits else ""
    closest = max(measured, key=_value)
    near = [f"Closest: {_named(closest, measured)}, {tested(closest)}."] if _value(closest) > 0 else []
    return Answer(student, "", f"Nothing beats {own} here{seen}.{pending}", (*near, *more))


def _trained(survey: Survey, student: str) -> list[Summary]:
    """A student's arms that were trained and evaluated."""
    return [one for one in survey.of(student) if one.evaluated and not one.run.cell.is_base]


def _total(one: Summary) -> float:
    return one.total.value


def advice(one: Frontier) -> str:
    """The choice among selections in a few words."""
    if one.chosen is None:
        return "no selection is recommended, for no problems were kept apart to choose on (evaluation.dev)"
    if not one.chosen.decided:
        return f"the data do not say which selection of {one.stream} to take"
    against = one.chosen.against_random
    return f"take {one.chosen.arm}" + (f", {points(against.total)} over random selection" if against is not None else "")


def _place(one: Frontier, grids: Sequence[Frontier]) -> str:
    told = f"{one.setting}: " if len({grid.setting for grid in grids}) > 1 else ""
    return told or "Selection: "


def _chosen(grids: Sequence[Frontier]) -> str:
    return next((one.chosen.arm for one in grids if one.chosen is not None and one.chosen.decided), "")


def _own(survey: Survey, student: str) -> str:
    kinds = {one.run.arm.kind for one in survey.of(student) if one.run.arm.stream == survey.baseline}
    return f"your own traces ({survey.baseline})" if kinds == {"native"} else survey.baseline


def _value(one: Contrast) -> float:
    return one.total.value if one.total is not None else -math.inf


def _named(one: Contrast, among: Sequence[Contrast]) -> str:
    return f"{one.arm} with {one.setting}" if one.setting and len({other.setting for other in among}) > 1 else one.arm


def _nothing_to_compare(survey: Survey, student: str) -> str:
    arms = list(dict.fromkeys(one.arm for one in survey.of(student) if not one.run.cell.is_base))
    if arms == [survey.baseline]:
        return f"Not answered: {survey.baseline} is the only arm, and there is nothing to compare it with."
    return f"Not answered: the baseline {survey.baseline} is not among the arms ({joined(arms)})."


def _faults(compared: Sequence[Contrast]) -> list[str]:
    return [f"{fault[0].upper()}{fault[1:]}." for fault in dict.fromkeys(one.fault for one in compared if one.fault)]


def _worse(measured: Sequence[Contrast]) -> list[str]:
    worse = [_named(one, measured) for one in measured if one.hurts]
    return [f"Worse than {measured[0].other}: {joined(worse)}."] if worse else []


def _untuned(survey: Survey, student: str) -> tuple[str, ...]:
    """Whether training on the baseline, or on anything, does any good at all."""
    against = [one for one in survey.contrasts if one.student == student and one.question == "base" and one.total is not None]
    if against and all(one.hurts for one in against):
        return ("Every arm leaves the student below where it started untuned.",)
    own = [one for one in against if one.arm == survey.baseline]
    return tuple(f"{_named(one, own)} itself leaves the student below the untuned one: {tested(one)}." for one in own if one.hurts)


def _higher(survey: Survey, taken: Contrast) -> str:
    """Says so where a selection came out above the arm to train on, for selections are compared with their pool's random one alone."""
    trained = _trained(survey, taken.student)
    own = max((one.total.value for one in trained if one.arm == taken.arm), default=math.inf)
    best = max(trained, key=_total)
    if best.total.value <= own or best.run.cell.get("selection.name") == "random":
        return ""
    return (
        f" Higher still came {best.arm}, {value(best.total, 1)} %, a selection found on the problems it is reported on: "
        "evaluation.dev keeps others to choose on."
    )


def _highest(survey: Survey, student: str) -> list[str]:
    best = max(_trained(survey, student), key=_total)
    setting = f" with {best.setting}" if best.setting else ""
    return [f"Highest total: {best.arm}{setting}, {value(best.total, 1)} % (95 % interval)."]
