"""The page itself: sections in their order, filled into the template."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from qup.analysis.figures.picture import Picture, palette_of
from qup.analysis.figures.style import inline, stylesheet
from qup.analysis.figures.tokens import visible
from qup.analysis.findings.frontier import Frontier
from qup.analysis.findings.survey import Survey
from qup.analysis.findings.verdict import Causal
from qup.analysis.findings.wording import causal, causal_brief, difference, finding, headline, plain, probability, scope, signed, value
from qup.analysis.statistics.estimates import SEEDS_FOR_RECIPE, Estimate
from qup.analysis.tables.table import Entry, Table

TEMPLATES = Path(__file__).parent / "templates"
_INTERVAL = re.compile(r"^(\S+) (\[[^\]]*\])(.*)$")


@dataclass(frozen=True)
class Section:
    """One part of the page."""

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


@dataclass(frozen=True)
class Line:
    """A sentence with its badge."""

    text: str
    badge: str = ""


@dataclass(frozen=True)
class Card:
    """What the first screen says of one student."""

    student: str
    outcome: str
    headline: str
    best: str
    scope: str
    findings: tuple[Any, ...]
    causal: tuple[Causal, ...]
    choices: tuple[str, ...]
    sentences: tuple[Line, ...]
    pictures: tuple[Picture, ...]


def render(survey: Survey, tables: Sequence[Table], pictures: Sequence[Picture], svgs: dict[str, str]) -> str:
    """The page's text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    palette = palette_of(survey)
    body = [section for section in _sections(survey, tables, pictures) if not section.empty]
    if survey.browser:
        body.insert(_after(body, ("tokens", "segments", "training", "benchmarks", "arms")), _traces(survey))
    titles = [("verdict", "Verdict"), *[(section.id, section.title) for section in body], ("method", "Method")]
    return environment.get_template("report.html.j2").render(
        survey=survey,
        cards=_cards(survey, pictures),
        lead=[picture for picture in pictures if picture.section == "axis"],
        body=body,
        sections=titles,
        complete=len(survey.runs) - len(survey.missing),
        seeds_text=_seeds(survey),
        method=_method(survey),
        palette=palette,
        svg={name: Markup(inline(svg, name)) for name, svg in svgs.items()},
        css=Markup(stylesheet() + (TEMPLATES / "style.css").read_text()),
        js=Markup((TEMPLATES / "script.js").read_text()),
        traces=Markup(embedded([{**one, "colours": {arm: palette.css(arm) for arm in one["arms"]}} for one in survey.browser]))
        if survey.browser
        else "",
        short=short,
        spaced=spaced,
        sortable=sortable,
        visible=visible,
        causal_brief=causal_brief,
    )


def embedded(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for found in "<>&\u2028\u2029":
        text = text.replace(found, f"\\u{ord(found):04x}")
    return text.encode("utf-8", "replace").decode()


def short(one: Estimate | None, digits: int = 2) -> Markup:
    """A difference with its interval below it."""
    return spaced(difference(one, digits)) if one is not None and math.isfinite(one.value) else Markup("–")


def spaced(shown: str) -> Markup:
    """The interval of an estimate on a line of its own."""
    found = _INTERVAL.match(shown)
    if not found:
        return escape(shown)
    return Markup("{}<small>{}{}</small>").format(found[1], found[2], found[3])


def sortable(entry: Entry) -> str:
    """The number that a cell is sorted by; "" where it is a word."""
    first = entry.values[0] if entry.values else None
    return repr(float(first)) if isinstance(first, int | float) and not isinstance(first, bool) and math.isfinite(first) else ""


def _seeds(survey: Survey) -> str:
    counts = {len(one.runs) for one in survey.summaries if not one.run.cell.is_base}
    if not counts:
        return "no trained cell"
    if len(counts) > 1:
        return f"{min(counts)} to {max(counts)} seeds"
    count = counts.pop()
    return "1 seed: these checkpoints" if count == 1 else f"{count} seeds" + (": these checkpoints" if count < SEEDS_FOR_RECIPE else "")


def _cards(survey: Survey, pictures: Sequence[Picture]) -> list[Card]:
    verdicts = {one.student: one for one in survey.verdicts}
    made = []
    for student in survey.students:
        verdict = verdicts.get(student)
        grids = [one for one in survey.frontiers if one.student == student]
        told = [Line(f"{one.setting}: {finding(one)}", one.outcome) for one in (verdict.findings if verdict else ())]
        told += [Line(f"{one.setting}: {causal(one)}", one.outcome) for one in (verdict.causal if verdict else ())]
        if verdict and verdict.findings:
            outcome, said = verdict.outcome, headline(verdict)
        elif any(one.evaluated and not one.run.cell.is_base for one in survey.of(student)):
            untested = "No Oracle arm stands against the baseline here, so the paradox itself is not tested."
            outcome, said = "", " ".join(f"{one.setting}: {advice(one)}." for one in grids[:2]) or untested
        else:
            outcome, said = "not measured", "Nothing is trained and evaluated yet."
        shown = tuple(picture for picture in pictures if picture.section == "first" and picture.group == student)
        made.append(
            Card(
                student,
                outcome,
                said,
                _best(survey, student),
                scope(verdict) if verdict else "",
                verdict.findings if verdict else (),
                verdict.causal if verdict else (),
                tuple(choice(one) for one in grids),
                tuple(told),
                shown,
            )
        )
    return made


def _best(survey: Survey, student: str) -> str:
    mine = [one for one in survey.of(student) if one.evaluated and not one.run.cell.is_base]
    if not mine:
        return ""
    best = max(mine, key=lambda one: one.total.value)
    text = f"Highest total: {best.arm}, {best.setting}, {value(best.total, 1)}"
    found = survey.contrast(best, "baseline")
    if found is not None and found.total is not None:
        text += f"; against {found.other} {difference(found.total, 1)} ({probability(found.p_holm)} after Holm)"
    return text + "."


def advice(one: Frontier) -> str:
    """The choice in a few words."""
    if one.chosen is None:
        return "no selection is recommended"
    return f"take {one.chosen.arm}" if one.chosen.decided else "the data do not say which selection to take"


def choice(one: Frontier) -> str:
    """Which selection a user should take, or that the data do not say."""
    place = f"{one.stream}, {one.setting}"
    if one.chosen is None:
        return f"{place}: no problems were kept apart (evaluation.dev), so no selection is recommended."
    chosen, against = one.chosen, one.chosen.against_random
    total = against.total if against is not None else None
    measured = f" ({difference(total, 1)} points)" if total is not None else ""
    if chosen.decided:
        return f"{place}: take {chosen.arm}. It was best on the problems kept apart, and {chosen.why}{measured}."
    return (
        f"{place}: the data do not say which selection to take. {chosen.arm} was best on the problems kept apart; {chosen.why}{measured}."
    )


def _traces(survey: Survey) -> Section:
    lead = "The same problems in every stream. Colour is the untuned student's surprise at each token; what differs from the baseline's trace is marked."
    lead += _first(survey)
    return Section("traces", "Traces", lead, lines=("",))


def _after(body: Sequence[Section], ids: Sequence[str]) -> int:
    places = [index for index, section in enumerate(body) if section.id in ids]
    return max(places, default=-1) + 1


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
        Section("differences", "Differences", f"Arm minus {survey.baseline} on the same problems. Arms below base after Holm are said to hurt.", _hurting(survey), shown("differences"), some("contrasts"), folded=len(survey.contrasts) > 12, wide=True),
        Section("benchmarks", "Benchmarks", "Exploratory: look here for where a difference comes from, not for whether there is one.", (), shown("benchmarks"), some("benchmarks"), folded=True),
        Section("heat", "Learning rate × batch size", "", (), shown("heat"), (), wide=True),
        Section("correlations", "Quality, compatibility, utility", "Does what a stream scores, or how familiar it is, go with what it teaches?", (), (), some("correlations")),
        Section("segments", "Where the surprise lies", f"Perplexity under the untuned student, by quarter of the response.{_first(survey)}", (), shown("segments"), some("segments"), folded=True),
        Section("tokens", "Which tokens carry it", _TOKENS + _first(survey), _shifts(survey), shown("tokens"), some("tokens", "token_shift"), folded=True),
        Section("training", "Training", "What adapting to a stream costs the student.", (), shown("training"), some("training"), folded=True),
        Section("losses", "Dropped, cut, retried", "Everything that stages counted on the way.", (), (), some("losses"), folded=len(survey.losses) > 30),
        Section("costs", "Cost", _cost(survey), (), (), some("costs")),
        Section("provenance", "Provenance", "Every number on this page comes from these stored results.", (), (), some("provenance"), folded=True),
    ]  # fmt: skip


_SELECTION = "Which of a problem's verified candidates enters the stream. The reward model that did not select is the honest judge of what selecting bought."
_TOKENS = "Share of each quarter's loss that single tokens carry, and tokens whose share of the text changes most against the baseline."


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
        mine = [f"{one.arm} {plain(100 * one.distance / 100, 1)} %" for one in survey.shifts if one.student == student]
        if mine:
            made.append(f"{student}: share of tokens that would have to change to match {survey.baseline}: {', '.join(mine)}.")
    return tuple(made)


def _cost(survey: Survey) -> str:
    hours, gpus, usd = (sum(getattr(one, name) for one in survey.costs) for name in ("hours", "gpu_hours", "usd"))
    return f"{plain(gpus)} GPU-hours, {plain(hours)} hours of stages, {plain(usd)} dollars of Oracle and judge."


def _method(survey: Survey) -> list[str]:
    reward = survey.reward or "none configured"
    return [
        f"Utility is Avg@k: the mean accuracy of k independent samples a problem. The total is the mean of the benchmarks; pooled is the mean over problems. The reward named beforehand is {reward}.",
        "Below three seeds, intervals of arms come from a BCa bootstrap that resamples problems within each benchmark and keeps a problem's samples together, and those of paired differences from t over problems. They speak of these checkpoints.",
        "From three seeds on, seed is a random level crossed with problem: variance components, t with Satterthwaite's degrees of freedom for problems and a quantile of its own for seeds. They speak of the recipe.",
        "p-values are two-sided and adjusted by Holm over all planned contrasts of the total: every arm against the baseline, against the untuned student, and style-aligned against refined. Each selection grid is a family of its own. Single benchmarks are exploratory.",
        f"The rule: premise fails where the reward difference's 95 % interval is not above 0; else shown where the total's difference is below 0 after Holm, reversed where above; else no difference where its 90 % interval lies within ± {plain(survey.margin, 1)} points; else undecided.",
        "Restored: style-aligned has a higher total than refined after Holm, and a lower perplexity. Not restored: either goes the other way, or the totals are equal within the margin.",
        "NLL is in nats under the untuned student, stop token left out; token t of T lies in quarter ⌊4t/T⌋; a stream's perplexity is exp(ΣNLL/Σtokens).",
    ]
