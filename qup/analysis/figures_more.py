"""Figures of the report's later sections: heat map, training curves, segmented perplexity, token shift."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qup.analysis.figures import HIGH, WIDE, Picture, _legend_below, _utility_axis, log_axis, palette_of, slug
from qup.analysis.style import MARKERS, MUTED, drawing
from qup.analysis.summaries import Summary
from qup.analysis.survey import Survey
from qup.analysis.wording import plain, signed, value

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


def segment_picture(survey: Survey, student: str) -> Picture | None:
    """Perplexity of the four quarters of each stream."""
    mine = [one for one in survey.segments if one.student == student and any(math.isfinite(q.value) for q in one.quarters)]
    if not mine:
        return None
    palette = palette_of(survey)
    with drawing() as make:
        figure = make(figsize=(WIDE, HIGH), layout="constrained")
        axes = figure.add_subplot()
        log_axis(axes, "y")
        for index, one in enumerate(mine):
            colour = palette.colour(one.arm)
            shift = 0.03 * (index - len(mine) / 2)
            x = [q + shift for q in range(1, 5)]
            y = [q.value for q in one.quarters]
            axes.plot(x, y, color=colour, marker=MARKERS[index % len(MARKERS)], markersize=5, linewidth=1.6, label=one.arm)
            for place, quarter in zip(x, one.quarters, strict=True):
                if math.isfinite(quarter.low):
                    axes.plot([place, place], [quarter.low, quarter.high], color=colour, linewidth=1.2, alpha=0.7)
        axes.set_xticks(range(1, 5), ["Q1", "Q2", "Q3", "Q4"])
        axes.set_xlabel("quarter of the response")
        axes.set_ylabel("perplexity under the untuned student")
        _legend_below(figure, axes, len(mine))
    words = "; ".join(f"{one.arm} " + ", ".join(plain(q.value) for q in one.quarters) for one in mine)
    caption = "Perplexity of the four quarters of each stream, log scale, 95 % intervals over traces."
    return Picture(
        slug("segments", student), "segments", student, caption, f"Line plot for {student}, perplexity in Q1 to Q4: {words}.", figure
    )


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
