"""The report's figures of selection: the frontier of quality and compatibility, and utility along λ."""

from __future__ import annotations

import math

from qup.analysis.figures.labels import spread_labels
from qup.analysis.figures.picture import HIGH, WIDE, Picture, bars, legend, level_across, palette_of, slug, utility_axis
from qup.analysis.figures.style import INK, MUTED, PAPER, drawing
from qup.analysis.findings.frontier import Frontier
from qup.analysis.findings.numbers import plain, value
from qup.analysis.findings.summaries import Summary
from qup.analysis.findings.survey import Survey

ALONG = ("reward", "joint", "perplexity")
"""Selections that lie along λ, from one end to the other."""


def frontier_pictures(survey: Survey, one: Frontier) -> list[Picture]:
    """The frontier by a reward model that did not select, beside the one that did; and utility along λ."""
    made = []
    for name in (*one.other_rewards[:1], one.used_reward):
        made += [picture for keep in _keeps(one) if name and (picture := _frontier(survey, one, name, keep)) is not None]
    return [*made, *(picture for keep in _keeps(one) if (picture := _along(survey, one, keep)) is not None)]


def _keep(point: Summary) -> int:
    """Traces of a problem that enter the stream, at the most."""
    return int(point.run.cell.get("selection.keep") or 1)


def _keeps(one: Frontier) -> list[int]:
    return sorted({_keep(point) for point in one.points})


def _tag(point: Summary) -> str:
    arm = point.run.arm
    if arm.selection == "joint":
        return f"λ={arm.weight:g}"
    weights = point.run.cell.get("selection.weights")
    return (arm.selection or "random") + (" weighted" if weights not in (None, "uniform") else "")


def _kept(one: Frontier, keep: int) -> list[str]:
    """What tells a picture of these streams from others of the same pool."""
    return [f"keep={keep}"] if len(_keeps(one)) > 1 else []


def _frontier(survey: Survey, one: Frontier, reward: str, keep: int) -> Picture | None:
    """Streams that keep so many traces of a problem, by their rewards and NLL."""
    points = [
        point
        for point in one.points
        if _keep(point) == keep and reward in point.rewards and math.isfinite(point.rewards[reward].value) and point.ppl.value > 0
    ]
    points = [point for point in points if math.isfinite(point.ppl.value)]
    if len(points) < 2:
        return None
    values = [point.total.value for point in points if point.evaluated]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    with drawing() as make:
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        scale = Normalize(low, high if high > low else low + 1)
        figure = make(figsize=(WIDE + 0.5, HIGH), layout="constrained")
        axes = figure.add_subplot()
        for point in points:
            x, y = point.ppl, point.rewards[reward]
            colour = colormaps["cividis"](scale(point.total.value)) if point.evaluated else PAPER
            axes.errorbar(math.log(x.value), y.value, xerr=_logs(point), yerr=bars(y), fmt="none", ecolor=MUTED, elinewidth=0.9, alpha=0.6)
            axes.plot(math.log(x.value), y.value, "o", markersize=9, color=colour, markeredgecolor=INK, markeredgewidth=0.8)
        joint = [point for point in points if point.run.arm.selection in ALONG]
        axes.plot(
            [math.log(point.ppl.value) for point in joint],
            [point.rewards[reward].value for point in joint],
            color=MUTED,
            linewidth=0.8,
            zorder=1,
        )
        axes.set_xlabel("mean NLL under the untuned student, nats a token")
        axes.set_ylabel(f"mean reward by {reward}, its own scale")
        axes.margins(0.15, 0.15)
        bar = figure.colorbar(ScalarMappable(norm=scale, cmap="cividis"), ax=axes, pad=0.02, aspect=28)
        bar.set_label(utility_axis(survey))
        bar.outline.set_visible(False)
        axes.autoscale_view()
        spread_labels(axes, [(math.log(point.ppl.value), point.rewards[reward].value, _tag(point), INK) for point in points])
    used = "used to select" if reward == one.used_reward else "not used to select"
    words = "; ".join(
        f"{_tag(point)}: NLL {plain(math.log(point.ppl.value), 3)}, reward {value(point.rewards[reward])}, total {value(point.total, 1)}"
        for point in points
    )
    caption = f"{', '.join([one.setting, one.stream, *_kept(one, keep)])}: each selection's mean reward by {reward} ({used}) against its mean NLL; shade is the total. Bars are 95 % intervals."
    return Picture(
        slug("frontier", one.student, one.setting, one.stream, reward, *_kept(one, keep)),
        "selection",
        one.student,
        caption,
        f"Frontier for {one.student}, {one.setting}, {one.stream}: {words}.",
        figure,
        slug("selection", one.student, one.setting, one.stream),
    )


def _logs(point: Summary) -> list[list[float]]:
    x = point.ppl
    if not math.isfinite(x.low):
        return [[0.0], [0.0]]
    return [[math.log(x.value / x.low)], [math.log(x.high / x.value)]]


def _along(survey: Survey, one: Frontier, keep: int) -> Picture | None:
    """Totals along λ of streams that keep so many traces of a problem."""
    mine = [point for point in one.points if point.evaluated and _keep(point) == keep]
    ordered = [point for point in mine if point.run.arm.selection in ALONG]
    random = next((point for point in mine if not point.run.arm.selects), None)
    if len(ordered) < 2:
        return None
    with drawing() as make:
        figure = make(figsize=(WIDE, HIGH), layout="constrained")
        axes = figure.add_subplot()
        x = range(len(ordered))
        colour = palette_of(survey).colour("slm_rft")
        if random is not None:
            legend(figure, [level_across(axes, random.total, "random selection")])
        axes.plot(x, [point.total.value for point in ordered], color=colour, linewidth=1.4)
        for place, point in zip(x, ordered, strict=True):
            axes.errorbar(place, point.total.value, yerr=bars(point.total), fmt="o", color=colour, markersize=6, elinewidth=1.2)
        axes.set_xticks(list(x), [_tag(point) for point in ordered])
        axes.set_xlabel("selection: reward alone  ←  weight of NLL, λ  →  perplexity alone")
        axes.set_ylabel(utility_axis(survey))
    words = "; ".join(f"{_tag(point)} {value(point.total, 1)}" for point in ordered)
    beside = f"; random {value(random.total, 1)}" if random is not None else ""
    caption = f"{', '.join([one.setting, one.stream, *_kept(one, keep)])}: total along λ with 95 % intervals; the band is random selection."
    return Picture(
        slug("lambda", one.student, one.setting, one.stream, *_kept(one, keep)),
        "selection",
        one.student,
        caption,
        f"Total along λ for {one.student}, {one.setting}, {one.stream}: {words}{beside}.",
        figure,
        slug("selection", one.student, one.setting, one.stream),
    )
