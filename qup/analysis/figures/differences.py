"""Paired differences of every arm to the baseline: the forest plot."""

from __future__ import annotations

import math
from typing import Any

from qup.analysis.figures.picture import WIDE, Picture, palette_of, slug
from qup.analysis.figures.style import GRID, MUTED, PAPER, drawing
from qup.analysis.findings.numbers import difference, plain
from qup.analysis.findings.survey import Survey


def forest(survey: Survey, student: str) -> Picture | None:
    """A row a comparison: its name and numbers above its interval, so that it fits a narrow page."""
    mine = [one for one in survey.contrasts if one.student == student and one.question == "baseline" and one.total is not None]
    if not mine:
        return None
    margin, family = survey.margin, mine[0].family
    palette = palette_of(survey)
    several = len({one.setting for one in mine}) > 1
    with drawing() as make:
        figure = make(figsize=(WIDE, 0.75 + 0.42 * len(mine)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvspan(-margin, margin, color=GRID, alpha=0.6, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        for row, one in enumerate(mine):
            total, colour = one.total, palette.colour(one.arm)
            assert total is not None
            axes.plot([total.low, total.high], [row, row], color=colour, linewidth=1.4)
            axes.plot([total.low90, total.high90], [row, row], color=colour, linewidth=4, alpha=0.45)
            face = colour if one.p_holm < 0.05 else "none"
            axes.plot(total.value, row, palette.marker(one.arm), color=colour, markersize=6.5, markerfacecolor=face, markeredgewidth=1.5)
            above: Any = {
                "xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "bottom", "fontsize": 8.5,
                "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6},
            }  # fmt: skip
            axes.annotate(f"{one.arm}{f'  {one.setting}' if several else ''}", (0, row), xytext=(0, 5), fontweight="bold", **above)
            axes.annotate(f"{difference(total, 1)}  p {_p(one.p_holm)}", (1, row), xytext=(0, 5), ha="right", **above)
        axes.set_yticks([])
        axes.set_ylim(len(mine) - 0.6, -0.75)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"total, points above or below {survey.baseline}")
    words = "; ".join(f"{one.arm} ({one.setting}) {difference(one.total, 1)}, p {_p(one.p_holm)} after Holm" for one in mine)
    caption = (
        f"Paired differences on the same problems, in points. Thin line: 95 % interval of that comparison alone, thick: 90 %. "
        f"p is after Holm over {family} comparisons; a full mark is below 0.05. The band is ± {plain(margin, 1)} points, the margin."
    )
    return Picture(
        slug("forest", student),
        "differences",
        student,
        caption,
        f"Forest plot for {student}, points to {mine[0].other}: {words}.",
        figure,
        "contrasts",
    )


def _p(p: float) -> str:
    if not math.isfinite(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"
