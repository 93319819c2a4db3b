"""Quality and compatibility of the streams, each against utility."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qup.analysis.figures.picture import HIGH, WIDE, Picture, bars, leading, level_across, log_axis, palette_of, slug, utility_axis
from qup.analysis.figures.style import INK, MARKERS, MUTED, Palette, drawing, spread_labels
from qup.analysis.findings.summaries import Summary
from qup.analysis.findings.survey import Survey
from qup.analysis.findings.wording import value
from qup.analysis.statistics.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def scatter(
    survey: Survey, student: str, measure: str, axis: str, read: Callable[[Summary], Estimate | None], *, log: bool
) -> Picture | None:
    """One measure of the streams against utility."""
    shown = [(one, found) for one in leading(survey, student) if (found := read(one)) is not None and math.isfinite(found.value)]
    if not shown:
        return None
    palette = palette_of(survey)
    objectives = list(dict.fromkeys(one.run.setting.objective for one, _ in shown))
    with drawing() as make:
        figure = make(figsize=(WIDE, HIGH), layout="constrained")
        axes = figure.add_subplot()
        if log:
            log_axis(axes, "x")
        for one, x in shown:
            colour, y = palette.colour(one.arm), one.total
            marker = MARKERS[objectives.index(one.run.setting.objective) % len(MARKERS)]
            lead = one.arm == survey.baseline
            axes.errorbar(x.value, y.value, xerr=bars(x), yerr=bars(y), fmt="none", ecolor=colour, elinewidth=1.1, alpha=0.55)
            axes.plot(
                x.value,
                y.value,
                marker,
                color=colour,
                markersize=8 if lead else 6.5,
                markeredgecolor=INK if lead else colour,
                markeredgewidth=1.6 if lead else 0.5,
            )
        _base_line(axes, survey, student)
        _objective_legend(axes, objectives, palette, survey)
        axes.set_xlabel(axis)
        axes.set_ylabel(utility_axis(survey))
        axes.margins(0.16, 0.14)
        last = {one.arm: (x.value, one.total.value) for one, x in shown}
        tops = {arm: max((x.value, one.total.value) for one, x in shown if one.arm == arm) for arm in last}
        one_stream = len({one.run.arm.stream for one, _ in shown}) == 1 and len(last) > 1
        tags = {arm: (arm.partition(" · ")[2] or "random") if one_stream else arm for arm in last}
        spread_labels(
            axes,
            [(*tops[arm], tags[arm], palette.colour(arm)) for arm in last],
            [span for one, x in shown for span in _spans(x, one.total)],
        )
    points = "; ".join(f"{one.arm} ({one.setting}) {measure} {value(x)}, utility {value(one.total, 1)}" for one, x in shown)
    caption = f"{axis[0].upper()}{axis[1:]} against utility. Bars are 95 % intervals; the baseline {survey.baseline} has a rim."
    return Picture(slug(measure, student), "first", student, caption, f"Scatter plot for {student}: {points}.", figure)


def _spans(x: Estimate, y: Estimate) -> list[tuple[float, float, float, float]]:
    """What a point with its two bars covers."""
    (left,), (right,) = bars(x)
    (down,), (up,) = bars(y)
    return [(x.value - left, x.value + right, y.value, y.value), (x.value, x.value, y.value - down, y.value + up)]


def reward_picture(survey: Survey, student: str) -> Picture | None:
    """Perceived quality against utility."""
    name = survey.reward
    return scatter(survey, student, "reward", f"mean reward ({name})", lambda one: one.rewards.get(name), log=False)


def perplexity_picture(survey: Survey, student: str) -> Picture | None:
    """Compatibility against utility."""
    return scatter(survey, student, "perplexity", "perplexity under the untuned student", lambda one: one.ppl, log=True)


def _base_line(axes: Axes, survey: Survey, student: str) -> None:
    base = next((one for one in survey.of(student) if one.run.cell.is_base and one.arm == "base" and one.evaluated), None)
    if base is not None:
        level_across(axes, base.total, "untuned")


def _objective_legend(axes: Axes, objectives: Sequence[str], palette: Palette, survey: Survey) -> None:
    if len(objectives) < 2:
        return
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=MUTED, marker=MARKERS[i % len(MARKERS)], linestyle="none", markersize=6, label=name.upper())
        for i, name in enumerate(objectives)
    ]
    axes.legend(
        handles=handles,
        loc="upper right",
        ncols=len(objectives),
        bbox_to_anchor=(1.0, 1.1),
        handletextpad=0.1,
        columnspacing=1.0,
        borderaxespad=0,
    )
