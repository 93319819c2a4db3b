"""The picture of when an effect holds: differences along a setting of the student, and what the student can do there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qup.analysis.figures.picture import Picture, bars, palette_of, slug
from qup.analysis.figures.style import GRID, MARKERS, MUTED, Palette, drawing
from qup.analysis.findings.numbers import difference, plain, value
from qup.analysis.findings.survey import AxisPoint, Survey
from qup.analysis.statistics.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = 0.09
"""How far arms stand from each other at one place of the axis."""


def axis_pictures(survey: Survey) -> list[Picture]:
    """One figure for every family of students and setting of training."""
    made = []
    palette = palette_of(survey)
    for family, setting in dict.fromkeys((one.family, one.setting) for one in survey.axis):
        points = [one for one in survey.axis if (one.family, one.setting) == (family, setting)]
        arms = list(dict.fromkeys(contrast.arm for point in points for contrast in point.contrasts if contrast.total is not None))
        if len(points) < 2 or not arms:
            continue
        axis, places = points[0].axis, {x: index for index, x in enumerate(sorted({point.x for point in points}))}
        levels = _levels(points, places)
        with drawing() as make:
            figure = make(figsize=(5.6, 5.6 if levels else 3.8), layout="constrained")
            above, *below = figure.subplots(2 if levels else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 2] if levels else [1])[
                :, 0
            ]
            _effects(above, survey, points, places, arms, palette)
            for axes in below:
                _skills(axes, levels)
            last = below[0] if below else above
            last.set_xticks(list(places.values()), [_tick(axis, x, points) for x in places])
            last.set_xlabel(_AXES.get(axis, axis) + ("\nbelow it: problems that the student can solve" if _counted(points) else ""))
        made.append(
            Picture(slug("axis", family, setting), "axis", family, _caption(survey, setting, axis, bool(levels)), _words(family, setting, points), figure, "axis")
        )  # fmt: skip
    return made


_AXES = {"exposure": "exposure: share of pretraining traces in the Oracle's styles"}


def _effects(
    axes: Axes, survey: Survey, points: Sequence[AxisPoint], places: dict[float, int], arms: Sequence[str], palette: Palette
) -> None:
    """Differences to the baseline, over the band that the study could not have told from nothing."""
    for point in points:
        if math.isfinite(point.detectable):
            at, reach = places[point.x], point.detectable
            axes.fill_between([at - 0.5, at + 0.5], -reach, reach, color=GRID, alpha=0.45, linewidth=0, zorder=0)
    axes.axhline(0, color=MUTED, linewidth=1)
    for index, arm in enumerate(arms):
        found = [
            (places[point.x] + APART * (index - (len(arms) - 1) / 2), contrast)
            for point in points
            for contrast in point.contrasts
            if contrast.arm == arm and contrast.total is not None
        ]
        colour, marker = palette.colour(arm), palette.marker(arm)
        axes.plot(
            [x for x, _ in found],
            [one.total.value for _, one in found if one.total],
            color=colour,
            linestyle=palette.dashes(arm),
            linewidth=1.4,
        )
        for x, one in found:
            assert one.total is not None
            face = colour if one.p_holm < 0.05 else "none"
            axes.errorbar(x, one.total.value, yerr=bars(one.total), fmt="none", ecolor=colour, elinewidth=1.2)
            axes.plot(x, one.total.value, marker, color=colour, markersize=6, markeredgewidth=1.4, markerfacecolor=face)
        axes.plot([], [], marker=marker, color=colour, linestyle=palette.dashes(arm), markersize=6, linewidth=1.4, label=arm)
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(f"total, points above or\nbelow {survey.baseline}")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(3, len(arms)), handlelength=1.8, columnspacing=1.2)


Level = tuple[str, list[tuple[int, Estimate]]]


def _levels(points: Sequence[AxisPoint], places: dict[float, int]) -> list[Level]:
    """What the untuned student can do along the axis, as it is prompted in training and otherwise."""
    made: dict[str, list[tuple[int, Estimate]]] = {}
    for point in points:
        for one in [*([point.base] if point.base else []), *point.prompted]:
            if one.evaluated:
                made.setdefault(_prompted(one.arm), []).append((places[point.x], one.total))
    return list(made.items())


def _prompted(arm: str) -> str:
    template = arm.partition("template=")[2]
    return f"prompted: {template}" if template else "its own prompt"


def _skills(axes: Axes, levels: Sequence[Level]) -> None:
    for index, (name, found) in enumerate(levels):
        shift = APART * (index - (len(levels) - 1) / 2)
        x, y = [place + shift for place, _ in found], [one.value for _, one in found]
        line, marker = ("-", "--", ":", "-.")[index % 4], tuple(MARKERS)[index % len(MARKERS)]
        axes.plot(x, y, linestyle=line, marker=marker, markersize=5, color=MUTED, linewidth=1.3, label=name)
        for place, (_, one) in zip(x, found, strict=True):
            axes.errorbar(place, one.value, yerr=bars(one), fmt="none", ecolor=MUTED, elinewidth=1.1)
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("untuned student,\ntotal, %")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(3, len(levels)), handlelength=2.4, columnspacing=1.2)


def _counted(points: Sequence[AxisPoint]) -> bool:
    return any(math.isfinite(point.solvable) for point in points)


def _tick(axis: str, x: float, points: Sequence[AxisPoint]) -> str:
    shown = f"{100 * x:g} %" if axis in ("exposure", "noise") else f"{x:g}"
    solvable = next((point.solvable for point in points if point.x == x), math.nan)
    return f"{shown}\n({solvable:.0f})" if math.isfinite(solvable) else shown


def _caption(survey: Survey, setting: str, axis: str, levels: bool) -> str:
    text = (
        f"{setting}: paired difference of each arm to {survey.baseline} along {axis}, 95 % intervals; full marks are below 0.05 after Holm. "
        "In the grey band lie true differences that the study would have missed more than one time in five."
    )
    return text + (" Below: accuracy of the untuned student under its own prompt and under others." if levels else "")


def _words(family: str, setting: str, points: Sequence[AxisPoint]) -> str:
    told = []
    for point in points:
        parts = [f"{one.arm} {difference(one.total, 1)}" for one in point.contrasts if one.total is not None]
        parts += [f"untuned {value(point.base.total, 1)}"] if point.base is not None else []
        parts += [f"untuned, {_prompted(one.arm)}, {value(one.total, 1)}" for one in point.prompted]
        parts += [f"{point.solvable:.0f} solvable problems"] if math.isfinite(point.solvable) else []
        parts += [f"detectable {plain(point.detectable, 1)}"] if math.isfinite(point.detectable) else []
        told.append(f"{point.axis} {point.x:g}: " + ", ".join(parts))
    return f"Differences along {points[0].axis} for {family}, {setting}: {'; '.join(told)}."
