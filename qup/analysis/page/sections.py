"""The sections of the page, in their order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qup.analysis.figures.picture import Picture
from qup.analysis.findings.frontier import Frontier
from qup.analysis.findings.judged import sentence
from qup.analysis.findings.numbers import plain, signed
from qup.analysis.findings.survey import Survey
from qup.analysis.page.cards import choice
from qup.analysis.tables.table import Table


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    lead: str = ""
    lines: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: bool = False
    wide: bool = False

    @property
    def empty(self) -> bool:
        return not (self.lines or self.pictures or self.tables)


def sections(survey: Survey, tables: Sequence[Table], pictures: Sequence[Picture]) -> list[Section]:
    """Those that have something to show."""
    body = [section for section in _sections(survey, tables, pictures) if not section.empty]
    if survey.browser:
        body.insert(_after(body, ("tokens", "segments", "training", "benchmarks", "arms")), _traces(survey))
    return body


def _sections(survey: Survey, tables: Sequence[Table], pictures: Sequence[Picture]) -> list[Section]:
    by_name = {table.name: table for table in tables}

    def some(*names: str) -> tuple[Table, ...]:
        return tuple(by_name[name] for name in names if name in by_name)

    def shown(section: str) -> tuple[Picture, ...]:
        return tuple(picture for picture in pictures if picture.section == section)

    selections = tuple(table for table in tables if table.name.startswith("selection_"))
    equal = tuple(f"These streams hold the same traces and are trained once: {', '.join(labels)}." for labels in survey.equal)
    return [
        Section("axis", "Along the axis", "What the picture at the top shows, in numbers.", (), (), some("axis")),
        Section("selection", "Selection", _SELECTION, (*[_tied(one) for one in survey.frontiers], *(equal if survey.frontiers else ())), shown("selection"), selections),
        Section("arms", "Arms", "Every arm with everything that was measured. Click a heading to sort.", () if survey.frontiers else equal, (), some("arms", "published", "published_grid")),
        Section("teachers", "Teachers", "Who wrote the traces, how they differ, and what each alone teaches.", (), (), some("teachers")),
        Section("differences", "Differences", f"Arm minus {survey.baseline} on the same problems. Arms below base after Holm are said to hurt.", _hurting(survey), shown("differences"), some("contrasts"), folded=len(survey.contrasts) > 12),
        Section("benchmarks", "Benchmarks", "Exploratory: look here for where a difference comes from, not for whether there is one.", (), shown("benchmarks"), some("benchmarks"), folded=True),
        Section("heat", "Learning rate × batch size", "", (), shown("heat"), (), wide=True),
        Section("correlations", "Quality, compatibility, utility", "Does what a stream scores, or how familiar it is, go with what it teaches?", (), (), some("correlations")),
        Section("judged", "What would have told us", _JUDGED, tuple(sentence(one) for one in survey.judgements), shown("judged"), some("judged")),
        Section("segments", "Where the surprise lies", f"Perplexity under the untuned student, by quarter of the response.{_first(survey)}", (), shown("segments"), some("segments"), folded=True),
        Section("tokens", "Which tokens carry it", _TOKENS + _first(survey), _shifts(survey), shown("tokens"), some("tokens", "token_shift"), folded=True),
        Section("training", "Training", "What adapting to a stream costs the student.", (), shown("training"), some("training"), folded=True),
        Section("losses", "Dropped, cut, retried", "Everything that stages counted on the way.", (), (), some("losses"), folded=len(survey.losses) > 30),
        Section("costs", "Cost", _cost(survey), (), (), some("costs")),
        Section("provenance", "Provenance", "Every number on this page comes from these stored results.", (), (), some("provenance"), folded=True),
    ]  # fmt: skip


_SELECTION = "Which of a problem's verified candidates enters the stream. The reward model that did not select is the honest judge of what selecting bought."
_JUDGED = "Every measure of how well traces suit the student, and every reward, as a predictor of what training on them gave: had one followed it before anyone paid for training."
_TOKENS = "Share of each quarter's loss that single tokens carry, and tokens whose share of the text changes most against the baseline."


def _traces(survey: Survey) -> Section:
    lead = "The same problems in every stream. Colour is the untuned student's surprise at each token; what differs from the baseline's trace is marked."
    return Section("traces", "Traces", lead + _first(survey), lines=("",))


def _after(body: Sequence[Section], ids: Sequence[str]) -> int:
    places = [index for index, section in enumerate(body) if section.id in ids]
    return max(places, default=-1) + 1


def _first(survey: Survey) -> str:
    """Where replicates have streams of their own, one of them stands for its arm."""
    several = any(len({run.cell.key("stream") for run in one.runs}) > 1 for one in survey.summaries)
    return " Each arm's first replicate." if several else ""


def _tied(one: Frontier) -> str:
    place = choice(one)
    if not math.isfinite(one.within_correlation):
        return place
    return f"{place} Within problems, reward and NLL are correlated at {signed(one.within_correlation)} over the pool: {_trade(one.within_correlation)}."


def _trade(tie: float) -> str:
    if tie > 0.2:
        return "better-scored candidates are more surprising, so there is something to trade"
    if tie < -0.2:
        return "better-scored candidates are less surprising too, so there is little to trade"
    return "they hardly go together, so each can be had with little loss of the other"


def _hurting(survey: Survey) -> tuple[str, ...]:
    hurt = [f"{one.arm} ({one.student}, {one.setting})" for one in survey.contrasts if one.question == "base" and one.hurts]
    return (f"Worse than the untuned student: {'; '.join(hurt)}.",) if hurt else ()


def _shifts(survey: Survey) -> tuple[str, ...]:
    made = []
    for student in survey.students:
        mine = [f"{one.arm} {plain(one.distance, 1)} %" for one in survey.shifts if one.student == student]
        if mine:
            made.append(f"{student}: share of tokens that would have to change to match {survey.baseline}: {', '.join(mine)}.")
    return tuple(made)


def _cost(survey: Survey) -> str:
    hours, gpus, usd = (sum(getattr(one, name) for one in survey.costs) for name in ("hours", "gpu_hours", "usd"))
    return f"{plain(gpus)} GPU-hours, {plain(hours)} hours of stages, {plain(usd)} dollars of Oracle and judge."
