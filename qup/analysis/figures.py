"""The report's figures: each with words that say what it shows, and an interval on everything that is sampled."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qup.analysis.contrasts import Contrast
from qup.analysis.statistics import Estimate
from qup.analysis.style import GRID, INK, MARKERS, MUTED, Palette, drawing, spread_labels
from qup.analysis.summaries import Summary
from qup.analysis.survey import Survey
from qup.analysis.wording import difference, plain, value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, HIGH = 4.7, 3.55
SETTINGS_SHOWN = 2


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


def slug(*parts: str) -> str:
    """A file name out of words."""
    return re.sub(r"[^a-z0-9]+", "_", "_".join(parts).lower()).strip("_")


def palette_of(survey: Survey) -> Palette:
    """The study's colours."""
    return Palette(tuple(dict.fromkeys(one.arm for one in survey.summaries)))


def leading(survey: Survey, student: str) -> list[Summary]:
    """What the first pictures show of a student: its arms under the first setting of each objective."""
    mine = [one for one in survey.of(student) if one.evaluated and not one.run.cell.is_base]
    settings = {one.run.setting.key: one.run.setting.objective for one in mine}
    firsts = {objective: key for key, objective in reversed(settings.items())}
    chosen = [one for one in mine if one.run.setting.key in firsts.values()]
    unselected = [one for one in chosen if not one.run.arm.selects]
    return unselected if len({one.arm for one in unselected}) > 1 else chosen


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
            axes.errorbar(x.value, y.value, xerr=_bars(x), yerr=_bars(y), fmt="none", ecolor=colour, elinewidth=1.1, alpha=0.55)
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
        axes.set_ylabel(_utility_axis(survey))
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
    (left,), (right,) = _bars(x)
    (down,), (up,) = _bars(y)
    return [(x.value - left, x.value + right, y.value, y.value), (x.value, x.value, y.value - down, y.value + up)]


def reward_picture(survey: Survey, student: str) -> Picture | None:
    """Perceived quality against utility."""
    name = survey.reward
    return scatter(survey, student, "reward", f"mean reward ({name})", lambda one: one.rewards.get(name), log=False)


def perplexity_picture(survey: Survey, student: str) -> Picture | None:
    """Compatibility against utility."""
    return scatter(survey, student, "perplexity", "perplexity under the untuned student", lambda one: one.ppl, log=True)


def _utility_axis(survey: Survey) -> str:
    k = {run.cell.get("evaluation.sampling.n") for run in survey.runs}
    return f"Avg@{k.pop()}, mean of {len(survey.benchmarks)} benchmarks" if len(k) == 1 else "accuracy, mean of benchmarks"


def _bars(one: Estimate) -> list[list[float]]:
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


def _base_line(axes: Axes, survey: Survey, student: str) -> None:
    base = next((one for one in survey.of(student) if one.run.cell.is_base and one.arm == "base" and one.evaluated), None)
    if base is not None:
        level_across(axes, base.total, "untuned")


def level_across(axes: Axes, level: Estimate, name: str) -> None:
    """A dashed line at a level to compare with, its interval as a band, its name at the right end."""
    axes.axhspan(level.low, level.high, color=GRID, alpha=0.45, linewidth=0)
    axes.axhline(level.value, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.annotate(
        name,
        (1.0, level.value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=MUTED,
        fontsize=8,
    )


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


def benchmark_picture(survey: Survey, student: str) -> list[Picture]:
    """Every benchmark by itself, one figure a setting."""
    made = []
    palette = palette_of(survey)
    base = [one for one in survey.of(student) if one.run.cell.is_base and one.evaluated and one.arm == "base"]
    settings = list(dict.fromkeys(one.setting for one in leading(survey, student)))
    for setting in settings[:SETTINGS_SHOWN]:
        mine = base + [one for one in leading(survey, student) if one.setting == setting]
        names = [*survey.benchmarks, "total"] if len(survey.benchmarks) > 1 else survey.benchmarks
        with drawing() as make:
            figure = make(figsize=(WIDE, 0.9 + len(names) * (0.22 + 0.1 * len(mine))), layout="constrained")
            axes = figure.add_subplot()
            step = 0.78 / max(len(mine), 1)
            for row, name in enumerate(names):
                for place, one in enumerate(mine):
                    found = one.total if name == "total" else one.benchmarks.get(name)
                    if found is None:
                        continue
                    y, colour = row - 0.39 + step * (place + 0.5), palette.colour(one.arm)
                    axes.plot([found.low, found.high], [y, y], color=colour, linewidth=1.3)
                    axes.plot(found.value, y, "o", color=colour, markersize=4.6, label=one.arm if row == 0 else None)
            axes.set_yticks(range(len(names)), [f"{name}\n({_size(mine, name)})" if name != "total" else "total" for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            for row in range(1, len(names)):
                axes.axhline(row - 0.5, color=GRID, linewidth=0.8)
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.set_xlabel(f"Avg@k, {setting}" if setting else "Avg@k")
            _legend_below(figure, axes, len(mine))
        words = "; ".join(
            f"{name}: " + ", ".join(f"{one.arm} {value(one.benchmarks.get(name), 1)}" for one in mine) for name in survey.benchmarks
        )
        caption = f"{setting or student}: each benchmark by itself, 95 % intervals. Exploratory: no correction for looking at many."
        made.append(
            Picture(
                slug("benchmarks", student, setting),
                "benchmarks",
                student,
                caption,
                f"Accuracy by benchmark for {student}, {setting}: {words}.",
                figure,
            )
        )
    return made


def _size(mine: Sequence[Summary], name: str) -> str:
    found = next((one.benchmarks[name].n for one in mine if name in one.benchmarks), 0)
    return f"{found} problems"


def _legend_below(figure: Any, axes: Axes, count: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    figure.legend(
        known.values(), known.keys(), loc="outside lower center", ncols=min(3, max(1, count)), handlelength=1.2, columnspacing=1.2
    )
