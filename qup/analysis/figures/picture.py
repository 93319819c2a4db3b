"""What a figure of the report is, and what several figures share: axes, bars, legends."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qup.analysis.figures.style import GRID, MUTED, Palette
from qup.analysis.findings.summaries import Summary
from qup.analysis.findings.survey import Survey
from qup.analysis.statistics.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


WIDE, HIGH = 4.7, 3.55
LEGEND_LINE = 0.2


@dataclass(frozen=True)
class Picture:
    """A figure with its caption and what it shows in words."""

    name: str
    section: str
    """Where in the report it stands."""
    group: str
    """Student, or student and setting, that it is about."""
    caption: str
    alt: str
    figure: Figure
    table: str = ""
    """Name of the report's table that its numbers stand in; "" where they stand in none."""


def slug(*parts: str) -> str:
    """A file name out of words."""
    return re.sub(r"[^a-z0-9]+", "_", "_".join(parts).lower()).strip("_")


def palette_of(survey: Survey) -> Palette:
    return Palette(tuple(dict.fromkeys(one.arm for one in survey.summaries)))


def leading(survey: Survey, student: str) -> list[Summary]:
    """What the first pictures show of a student: its arms under the first setting of each objective."""
    mine = [one for one in survey.of(student) if one.evaluated and not one.run.cell.is_base]
    settings = {one.run.setting.key: one.run.setting.objective for one in mine}
    firsts = {objective: key for key, objective in reversed(settings.items())}
    chosen = [one for one in mine if one.run.setting.key in firsts.values()]
    unselected = [one for one in chosen if not one.run.arm.selects]
    return unselected if len({one.arm for one in unselected}) > 1 else chosen


def utility_axis(survey: Survey) -> str:
    """What totals are, with their unit."""
    k = {run.cell.get("evaluation.sampling.n") for run in survey.runs}
    many = len(survey.benchmarks)
    of = "" if many == 1 else f", mean of {many} benchmarks"
    return f"{f'Avg@{k.pop()}' if len(k) == 1 else 'accuracy'}, %{of}"


def bars(one: Estimate) -> list[list[float]]:
    low = one.value - one.low if math.isfinite(one.low) else 0.0
    high = one.high - one.value if math.isfinite(one.high) else 0.0
    return [[max(low, 0.0)], [max(high, 0.0)]]


LOG_TICKS = ((1.2, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (2.2, (1.0, 2.0, 5.0)), (3.5, (1.0, 3.0)), (math.inf, (1.0,)))
"""Up to so many decades, which multiples of a power of ten are marked."""


def log_axis(axes: Axes, which: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    class Ticks(LogLocator):
        """The fewer a decade, the more decades there are."""

        def tick_values(self, low: float, high: float) -> Any:
            decades = abs(math.log10(high / low)) if min(low, high) > 0 else 1.0
            self.set_params(subs=next(subs for most, subs in LOG_TICKS if decades <= most))
            return super().tick_values(low, high)

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(Ticks(base=10, numticks=12))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def level_across(axes: Axes, level: Estimate, name: str) -> Line2D:
    """A dashed line at a level to compare with, its interval as a band; returns what names it in the legend."""
    axes.axhspan(level.low, level.high, color=GRID, alpha=0.45, linewidth=0)
    return axes.axhline(level.value, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label=name)


def arm_handle(palette: Palette, arm: str, name: str = "", line: bool = False) -> Line2D:
    """An arm in a legend, by its shape and colour."""
    from matplotlib.lines import Line2D

    style: Any = palette.dashes(arm) if line else "none"
    return Line2D([], [], color=palette.colour(arm), marker=palette.marker(arm), linestyle=style, markersize=6.5, label=name or arm)


def legend(figure: Figure, handles: Sequence[Any], columns: int = 2, room: int = 3) -> None:
    """Below the axes, where it covers nothing; the figure grows by the lines beyond those it has `room` for."""
    labels = [str(handle.get_label()) for handle in handles]
    wide = max((len(label) for label in labels), default=0)
    fitting = min(3 if wide < 20 else columns if wide < 34 else 1, len(labels))
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * max(0, math.ceil(len(labels) / fitting) - room))
    figure.legend(handles, labels, loc="outside lower center", ncols=fitting, handlelength=2.0, columnspacing=1.4, handletextpad=0.5)
