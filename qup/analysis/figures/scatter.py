"""Quality and compatibility of the streams, each against utility."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from qup.analysis.figures.picture import (
    WIDE,
    Picture,
    arm_handle,
    bars,
    leading,
    legend,
    level_across,
    log_axis,
    palette_of,
    slug,
    utility_axis,
)
from qup.analysis.figures.style import MUTED, drawing
from qup.analysis.findings.numbers import value
from qup.analysis.findings.summaries import Summary
from qup.analysis.findings.survey import Survey
from qup.analysis.statistics.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

FILLS = ("full", "none", "left", "top")
"""How a mark is filled, by objective."""


def scatter(
    survey: Survey, student: str, measure: str, axis: str, read: Callable[[Summary], Estimate | None], *, log: bool
) -> Picture | None:
    """One measure of the streams against utility: shape and colour tell the arm, the filling the objective."""
    shown = [(one, found) for one in leading(survey, student) if (found := read(one)) is not None and math.isfinite(found.value)]
    if not shown:
        return None
    palette = palette_of(survey)
    objectives = list(dict.fromkeys(one.run.setting.objective for one, _ in shown))
    arms = list(dict.fromkeys(one.arm for one, _ in shown))
    one_stream = len({one.run.arm.stream for one, _ in shown}) == 1 and len(arms) > 1
    names = {arm: (arm.partition(" · ")[2] or "random") if one_stream else arm for arm in arms}
    with drawing() as make:
        figure = make(figsize=(WIDE, 3.3), layout="constrained")
        axes = figure.add_subplot()
        if log:
            log_axis(axes, "x")
        for one, x in shown:
            colour, y = palette.colour(one.arm), one.total
            fill = FILLS[objectives.index(one.run.setting.objective) % len(FILLS)]
            axes.errorbar(x.value, y.value, xerr=bars(x), yerr=bars(y), fmt="none", ecolor=colour, elinewidth=1.1, alpha=0.55)
            axes.plot(x.value, y.value, palette.marker(one.arm), color=colour, fillstyle=fill, markersize=8, markeredgewidth=1.4)
        handles = [arm_handle(palette, arm, names[arm]) for arm in arms]
        handles += _base_line(axes, survey, student)
        if len(objectives) > 1:
            handles += [_filled(fill, name.upper()) for fill, name in zip(FILLS, objectives, strict=False)]
        legend(figure, handles, room=0)
        axes.set_xlabel(axis)
        axes.set_ylabel(utility_axis(survey))
        axes.margins(0.08, 0.1)
    points = "; ".join(f"{one.arm} ({one.setting}) {measure} {value(x)}, utility {value(one.total, 1)} %" for one, x in shown)
    caption = f"{axis[0].upper()}{axis[1:]} against utility, a mark an arm. Bars are 95 % intervals of each arm by itself."
    return Picture(slug(measure, student), "first", student, caption, f"Scatter plot for {student}: {points}.", figure, "arms")


def reward_picture(survey: Survey, student: str) -> Picture | None:
    """Perceived quality against utility."""
    name = survey.reward
    return scatter(survey, student, "reward", f"mean reward by {name}, its own scale", lambda one: one.rewards.get(name), log=False)


def perplexity_picture(survey: Survey, student: str) -> Picture | None:
    """Compatibility against utility."""
    return scatter(survey, student, "perplexity", "perplexity under the untuned student (log scale)", lambda one: one.ppl, log=True)


def _base_line(axes: Axes, survey: Survey, student: str) -> list[Line2D]:
    base = next((one for one in survey.of(student) if one.run.cell.is_base and one.arm == "base" and one.evaluated), None)
    return [level_across(axes, base.total, "untuned")] if base is not None else []


def _filled(fill: str, name: str) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=MUTED, marker="o", fillstyle=fill, linestyle="none", markersize=7, markeredgewidth=1.3, label=name)  # type: ignore[arg-type]
