"""The page itself: sections in their order, filled into the template."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from qup.analysis.figures.picture import Picture, palette_of
from qup.analysis.figures.style import inline, stylesheet
from qup.analysis.figures.tokens import visible
from qup.analysis.findings.contrasts import Contrast
from qup.analysis.findings.numbers import difference, plain, probability
from qup.analysis.findings.survey import Survey
from qup.analysis.findings.wording import causal_brief
from qup.analysis.page.cards import cards
from qup.analysis.page.sections import sections
from qup.analysis.statistics.estimates import SEEDS_FOR_RECIPE, Estimate
from qup.analysis.tables.table import Entry, Table

TEMPLATES = Path(__file__).parent / "templates"
_INTERVAL = re.compile(r"^(\S+) (\[[^\]]*\])(.*)$")


def environment() -> Environment:
    """Templates; whatever they are given is text."""
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def render(survey: Survey, tables: Sequence[Table], pictures: Sequence[Picture], svgs: dict[str, str]) -> str:
    palette = palette_of(survey)
    body = sections(survey, tables, pictures)
    titles = [("verdict", "Answer"), ("setup", "Setup"), *[(section.id, section.title) for section in body], ("method", "Method")]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            survey=survey,
            cards=cards(survey, pictures),
            lead=[picture for picture in pictures if picture.section == "axis"],
            body=body,
            sections=titles,
            complete=len(survey.runs) - len(survey.missing),
            seeds_text=_seeds(survey),
            method=_method(survey),
            palette=palette,
            svg={name: Markup(inline(svg, name)) for name, svg in svgs.items()},
            css=Markup(stylesheet() + (TEMPLATES / "style.css").read_text(encoding="utf-8")),
            js=Markup((TEMPLATES / "script.js").read_text(encoding="utf-8")),
            traces=Markup(
                embedded(
                    [
                        {
                            **one,
                            "colours": {arm: palette.css(arm) for arm in one["arms"]},
                            "glyphs": {arm: palette.glyph(arm) for arm in one["arms"]},
                        }
                        for one in survey.browser
                    ]
                )
            )
            if survey.browser
            else "",
            short=short,
            p_of=p_of,
            spaced=spaced,
            sortable=sortable,
            visible=visible,
            causal_brief=causal_brief,
        )
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


def p_of(one: Contrast) -> str:
    """`0.031`, `< 0.001`."""
    return probability(one.p_holm).removeprefix("p = ").removeprefix("p ") if math.isfinite(one.p_holm) else "–"


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
