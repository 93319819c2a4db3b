"""Every benchmark by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qup.analysis.figures.picture import WIDE, Picture, arm_handle, leading, legend, palette_of, slug
from qup.analysis.figures.style import GRID, drawing
from qup.analysis.findings.numbers import value
from qup.analysis.findings.summaries import Summary
from qup.analysis.findings.survey import Survey

if TYPE_CHECKING:
    pass


SETTINGS_SHOWN = 2


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
                    axes.plot(found.value, y, palette.marker(one.arm), color=colour, markersize=5)
            axes.set_yticks(range(len(names)), [f"{name}\n({_size(mine, name)})" if name != "total" else "total" for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            for row in range(1, len(names)):
                axes.axhline(row - 0.5, color=GRID, linewidth=0.8)
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.set_xlabel(f"Avg@k, %, {setting}" if setting else "Avg@k, %")
            legend(figure, [arm_handle(palette, one.arm) for one in mine])
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
                "benchmarks",
            )
        )
    return made


def _size(mine: Sequence[Summary], name: str) -> str:
    found = next((one.benchmarks[name].n for one in mine if name in one.benchmarks), 0)
    return f"{found} problems"
