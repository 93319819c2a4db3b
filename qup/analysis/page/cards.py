"""What the first screen says of each student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qup.analysis.figures.picture import Picture
from qup.analysis.findings.answer import Answer, advice, answer
from qup.analysis.findings.frontier import Frontier
from qup.analysis.findings.numbers import points
from qup.analysis.findings.survey import Survey
from qup.analysis.findings.verdict import Causal, Finding, Verdict
from qup.analysis.findings.wording import EXPLAINED, causal, finding, headline, scope


@dataclass(frozen=True)
class Line:
    """A sentence with its badge."""

    text: str
    badge: str = ""


@dataclass(frozen=True)
class Card:
    """One student: the answer, the paradox, and every arm against the baseline."""

    student: str
    answer: Answer
    outcome: str
    headline: str
    scope: str
    standings: tuple[Finding, ...]
    causal: tuple[Causal, ...]
    choices: tuple[str, ...]
    explained: tuple[tuple[str, str], ...]
    """The verdicts' words that stand on this card, and what they mean."""
    sentences: tuple[Line, ...]
    pictures: tuple[Picture, ...]

    @property
    def family(self) -> int:
        """Comparisons that Holm's procedure corrects together."""
        return max((one.contrast.family for one in self.standings if one.contrast.question == "baseline"), default=0)


def cards(survey: Survey, pictures: Sequence[Picture]) -> list[Card]:
    """One for every student, in the study's order."""
    return [_card(survey, student, pictures) for student in survey.students]


def _card(survey: Survey, student: str, pictures: Sequence[Picture]) -> Card:
    verdict = next((one for one in survey.verdicts if one.student == student), None)
    standings = tuple(one for one in survey.standings if one.student == student)
    grids = [one for one in survey.frontiers if one.student == student]
    settled = verdict.causal if verdict else ()
    sentences = [Line(_under(one, finding(one)), one.outcome or one.teaches) for one in standings]
    sentences += [Line(_under(one, causal(one)), one.outcome) for one in settled]
    return Card(
        student,
        answer(survey, student),
        verdict.outcome if verdict and verdict.findings else "",
        headline(verdict) if verdict and verdict.findings else "",
        scope(verdict) if verdict else "",
        standings,
        settled,
        tuple(choice(one) for one in grids),
        _explained(verdict, settled, standings),
        tuple(sentences),
        tuple(picture for picture in pictures if picture.section == "first" and picture.group == student),
    )


def _under(one: Finding | Causal, text: str) -> str:
    return f"{one.setting}: {text}" if one.setting else text


def _explained(verdict: Verdict | None, settled: Sequence[Causal], standings: Sequence[Finding]) -> tuple[tuple[str, str], ...]:
    words = [verdict.outcome] if verdict and verdict.findings else []
    words += [one.outcome for one in standings if one.outcome] + [one.outcome for one in settled]
    words += [one.teaches for one in standings if one.teaches == "undecided"]
    return tuple((word, EXPLAINED[word]) for word in dict.fromkeys(words) if word in EXPLAINED)


def choice(one: Frontier) -> str:
    """Which selection a user should take, or that the data do not say."""
    place = f"{one.stream}, {one.setting}"
    if one.chosen is None:
        return f"{place}: {advice(one)}."
    chosen, against = one.chosen, one.chosen.against_random
    measured = f" ({points(against.total)}, 95 % interval)" if against is not None else ""
    said = f"take {chosen.arm}. It" if chosen.decided else f"{advice(one)}. {chosen.arm}"
    return f"{place}: {said} was best on the problems kept apart; {chosen.why}{measured}."
