"""Paired differences of every arm to the baseline: the forest plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qup.analysis.figures.picture import Picture, palette_of, slug
from qup.analysis.figures.style import GRID, MUTED, drawing
from qup.analysis.findings.contrasts import Contrast
from qup.analysis.findings.survey import Survey
from qup.analysis.findings.wording import difference, plain

if TYPE_CHECKING:
    pass


def forest(survey: Survey, student: str) -> Picture | None:
    """Paired differences of every arm to the baseline."""
    mine = [one for one in survey.contrasts if one.student == student and one.question == "baseline" and one.total is not None]
    if not mine:
        return None
    return _forest(survey, student, mine, "forest", f"total, points above or below {survey.baseline}", survey.margin)


def _forest(survey: Survey, student: str, mine: Sequence[Contrast], name: str, axis: str, margin: float) -> Picture:
    palette = palette_of(survey)
    several = len({one.setting for one in mine}) > 1
    with drawing() as make:
        figure = make(figsize=(7.4, 0.75 + 0.34 * len(mine)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvspan(-margin, margin, color=GRID, alpha=0.6, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        for row, one in enumerate(mine):
            total, colour = one.total, palette.colour(one.arm)
            assert total is not None
            axes.plot([total.low, total.high], [row, row], color=colour, linewidth=1.4)
            axes.plot([total.low90, total.high90], [row, row], color=colour, linewidth=4, alpha=0.45)
            axes.plot(
                total.value,
                row,
                "o",
                color=colour,
                markersize=6.5,
                markerfacecolor=colour if one.p_holm < 0.05 else "none",
                markeredgewidth=1.5,
            )
            axes.annotate(
                f"{difference(total, 1)}   p {_p(one.p_holm)}",
                (1.02, row),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8.5,
                annotation_clip=False,
            )
        axes.set_yticks(range(len(mine)), [f"{one.arm}{f'  {one.setting}' if several else ''}" for one in mine])
        axes.set_ylim(len(mine) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis)
    words = "; ".join(f"{one.arm} ({one.setting}) {difference(one.total, 1)}, p {_p(one.p_holm)} after Holm" for one in mine)
    caption = f"Paired differences on the same problems. Thin line 95 %, thick 90 % interval; a full dot is below 0.05 after Holm; the band is ± {plain(margin, 1)} points."
    return Picture(
        slug(name, student), "differences", student, caption, f"Forest plot for {student}, points to {mine[0].other}: {words}.", figure
    )


def _p(p: float) -> str:
    if not math.isfinite(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"
