"""Totals over learning rate and batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qup.analysis.figures.picture import Picture, slug
from qup.analysis.figures.style import drawing
from qup.analysis.findings.numbers import plain, value
from qup.analysis.findings.summaries import Summary
from qup.analysis.findings.survey import Survey


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
        slug("heatmap", student, objective),
        "heat",
        student,
        caption,
        f"Heat map for {student}, {objective.upper()}: {words}.",
        figure,
        "arms",
    )
