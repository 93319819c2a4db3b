"""The report's figures that only some studies have: heat map, training curves, selection, and a student's axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qup.analysis.figures import HIGH, WIDE, Picture, _bars, _legend_below, _utility_axis, palette_of, slug
from qup.analysis.style import GRID, MARKERS, MUTED, drawing
from qup.analysis.summaries import Summary
from qup.analysis.survey import AxisPoint, Survey
from qup.analysis.wording import difference, plain, signed, value

MOST_CURVES = 24


def heat_maps(survey: Survey, student: str) -> list[Picture]:
    """Totals over learning rate × batch size, one panel an arm, one figure an objective."""
    made = []
    mine = [one for one in survey.of(student) if one.evaluated and not one.run.cell.is_base and not one.run.arm.selects]
    for objective in dict.fromkeys(one.run.setting.objective for one in mine):
        shown = [one for one in mine if one.run.setting.objective == objective]
        rates = sorted({one.run.setting.lr for one in shown if one.run.setting.lr is not None})
        batches = sorted({one.run.setting.batch_size for one in shown if one.run.setting.batch_size is not None})
        if len(rates) < 2 and len(batches) < 2:
            continue
        made.append(_heat_map(survey, student, objective, shown, rates, batches))
    return made


def _heat_map(
    survey: Survey, student: str, objective: str, shown: Sequence[Summary], rates: Sequence[float], batches: Sequence[int]
) -> Picture:
    arms = list(dict.fromkeys(one.arm for one in shown))
    place = {(one.arm, one.run.setting.lr, one.run.setting.batch_size): one for one in reversed(shown)}
    low, high = min(one.total.value for one in shown), max(one.total.value for one in shown)
    columns = min(3, len(arms))
    rows = math.ceil(len(arms) / columns)
    with drawing() as make:
        figure = make(figsize=(0.7 + columns * (0.7 + 0.85 * len(batches)), 0.5 + rows * (0.65 + 0.55 * len(rates))), layout="constrained")
        for index, arm in enumerate(arms):
            axes = figure.add_subplot(rows, columns, index + 1)
            grid = [[place[arm, lr, batch].total.value if (arm, lr, batch) in place else math.nan for batch in batches] for lr in rates]
            axes.imshow(grid, cmap="cividis", vmin=low, vmax=high, aspect="auto")
            for y, lr in enumerate(rates):
                for x, batch in enumerate(batches):
                    one = place.get((arm, lr, batch))
                    if one is None:
                        continue
                    dark = one.total.value < (low + high) / 2
                    colour = "white" if dark else "black"
                    axes.text(x, y - 0.1, plain(one.total.value, 1), ha="center", va="center", color=colour, fontsize=9, fontweight="bold")
                    axes.text(x, y + 0.24, f"± {plain(one.total.half, 1)}", ha="center", va="center", color=colour, fontsize=7.5)
            axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
            axes.set_yticks(range(len(rates)), [f"{lr:g}" for lr in rates])
            axes.grid(visible=False)
            axes.tick_params(length=0)
            axes.set_title(arm)
            axes.set_xlabel("batch size")
            axes.set_ylabel("learning rate")
    words = "; ".join(
        f"{one.arm} lr {one.run.setting.lr:g} batch {one.run.setting.batch_size}: {value(one.total, 1)}"
        for one in shown
        if one.run.setting.lr is not None
    )
    caption = f"{objective.upper()}: total over learning rate and batch size, with half the 95 % interval."
    return Picture(
        slug("heatmap", student, objective), "heat", student, caption, f"Heat map for {student}, {objective.upper()}: {words}.", figure
    )


def curve_pictures(survey: Survey, student: str) -> list[Picture]:
    """Training NLL by step, one figure an objective."""
    made = []
    palette = palette_of(survey)
    mine = [one for one in survey.curves if one.student == student]
    objectives = list(dict.fromkeys(one.setting.partition(" ")[0] for one in mine))
    for objective in objectives:
        shown = [one for one in mine if one.setting.partition(" ")[0] == objective][:MOST_CURVES]
        with drawing() as make:
            figure = make(figsize=(WIDE, HIGH), layout="constrained")
            axes = figure.add_subplot()
            for one in shown:
                axes.plot(one.step, one.nll, color=palette.colour(one.arm), linewidth=1.3, alpha=0.9, label=one.arm)
            axes.set_xlabel("optimizer step")
            axes.set_ylabel("training NLL, nats a token")
            axes.set_ylim(bottom=0)
            _legend_below(figure, axes, len({one.arm for one in shown}))
        words = "; ".join(f"{one.arm}: from {plain(one.nll[0])} to {plain(one.nll[-1])}" for one in shown)
        caption = (
            f"{objective}: training NLL of every run, averaged within bins of steps. Its area above the end level is the adaptation cost."
        )
        made.append(
            Picture(
                slug("curves", student, objective),
                "training",
                student,
                caption,
                f"Training curves for {student}, {objective}, nats a token: {words}.",
                figure,
            )
        )
    return made


def kept_picture(survey: Survey, student: str) -> Picture | None:
    """Utility of weights kept on the way."""
    mine = [one for one in survey.kept_at if one[0] == student]
    if not mine:
        return None
    palette = palette_of(survey)
    with drawing() as make:
        figure = make(figsize=(WIDE, HIGH), layout="constrained")
        axes = figure.add_subplot()
        for _, setting, arm, points in mine:
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=palette.colour(arm),
                marker="o",
                markersize=4,
                label=f"{arm} {setting}",
            )
        axes.set_xlabel("share of the run")
        axes.set_ylabel(_utility_axis(survey))
        _legend_below(figure, axes, len(mine))
    words = "; ".join(f"{arm} {setting}: " + ", ".join(f"{plain(y, 1)} at {x:g}" for x, y in points) for _, setting, arm, points in mine)
    return Picture(
        slug("during", student),
        "training",
        student,
        "Total of weights kept during training (points only: one evaluation each).",
        f"Line plot for {student}: {words}.",
        figure,
    )


def axis_pictures(survey: Survey) -> list[Picture]:
    """Differences to the baseline along a setting of the student, one figure a setting of training."""
    made = []
    palette = palette_of(survey)
    for family, setting in dict.fromkeys((one.family, one.setting) for one in survey.axis):
        points = [one for one in survey.axis if (one.family, one.setting) == (family, setting)]
        arms = list(dict.fromkeys(contrast.arm for point in points for contrast in point.contrasts if contrast.total is not None))
        if len(points) < 2 or not arms:
            continue
        with drawing() as make:
            figure = make(figsize=(7.4, 4.0), layout="constrained")
            axes = figure.add_subplot()
            axes.axhspan(-survey.margin, survey.margin, color=GRID, alpha=0.6, linewidth=0)
            axes.axhline(0, color=MUTED, linewidth=1)
            places = {x: index for index, x in enumerate(sorted({point.x for point in points}))}
            for index, arm in enumerate(arms):
                found = [
                    (places[point.x], contrast.total)
                    for point in points
                    for contrast in point.contrasts
                    if contrast.arm == arm and contrast.total is not None
                ]
                shift = 0.09 * (index - (len(arms) - 1) / 2)
                colour = palette.colour(arm)
                axes.plot([x + shift for x, _ in found], [total.value for _, total in found], color=colour, linewidth=1.4, label=arm)
                for x, total in found:
                    axes.errorbar(
                        x + shift,
                        total.value,
                        yerr=_bars(total),
                        fmt=MARKERS[index % len(MARKERS)],
                        color=colour,
                        markersize=6,
                        elinewidth=1.2,
                    )
            axes.set_xticks(list(places.values()), [_percent(points[0], x) for x in places])
            axes.set_xlabel(points[0].axis)
            axes.set_ylabel(f"points above or below {survey.baseline}")
            _legend_below(figure, axes, len(arms))
        words = "; ".join(
            f"{point.axis} {point.x:g}: "
            + ", ".join(f"{contrast.arm} {difference(contrast.total, 1)}" for contrast in point.contrasts if contrast.total is not None)
            for point in points
        )
        caption = f"{setting}: paired difference of each arm to {survey.baseline} along {points[0].axis}, 95 % intervals; the band is ± {plain(survey.margin, 1)} points."
        made.append(
            Picture(
                slug("axis", family, setting),
                "axis",
                family,
                caption,
                f"Differences along {points[0].axis} for {family}, {setting}: {words}.",
                figure,
            )
        )
    return made


def _percent(point: AxisPoint, x: float) -> str:
    return f"{100 * x:g} %" if point.axis in ("exposure", "noise") else f"{x:g}"


def shift_picture(survey: Survey, student: str) -> Picture | None:
    """The largest changes of token frequency, one panel an arm."""
    mine = [one for one in survey.shifts if one.student == student and (one.up or one.down)][:4]
    if not mine:
        return None
    palette = palette_of(survey)
    with drawing() as make:
        columns = min(2, len(mine))
        rows = math.ceil(len(mine) / columns)
        figure = make(figsize=(3.7 * columns, 0.4 + 2.35 * rows), layout="constrained")
        for index, one in enumerate(mine):
            axes = figure.add_subplot(rows, columns, index + 1)
            bars = [*one.up[:5], *reversed(one.down[:5])]
            axes.barh(range(len(bars)), [change for _, change in bars], color=palette.colour(one.arm), height=0.66)
            axes.set_yticks(range(len(bars)), [visible(token) for token, _ in bars], family="monospace", parse_math=False)
            axes.invert_yaxis()
            axes.axvline(0, color=MUTED, linewidth=0.9)
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.set_title(one.arm)
            axes.set_xlabel("points of all tokens")
    words = "; ".join(
        f"{one.arm}: " + ", ".join(f"{visible(token)} {signed(change)}" for token, change in [*one.up[:3], *one.down[:3]]) for one in mine
    )
    caption = f"Tokens whose share of all tokens changes most against {mine[0].baseline}, in percent points."
    return Picture(slug("shift", student), "tokens", student, caption, f"Token frequency shift for {student}: {words}.", figure)


def visible(token: str) -> str:
    """A token with its white space shown; control characters are left out."""
    shown = token.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")
    shown = "".join(one for one in shown if one.isprintable())
    return shown[:18] + "…" if len(shown) > 19 else shown
