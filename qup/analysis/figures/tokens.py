"""Where the surprise of a stream lies, and which tokens carry it."""

from __future__ import annotations

import math

from qup.analysis.figures.picture import HIGH, WIDE, Picture, arm_handle, legend, log_axis, palette_of, slug
from qup.analysis.figures.style import MUTED, drawing
from qup.analysis.findings.numbers import plain, signed
from qup.analysis.findings.survey import Survey


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
            axes.plot(x, y, palette.marker(one.arm), color=colour, linestyle=palette.dashes(one.arm), markersize=5, linewidth=1.5)
            for place, quarter in zip(x, one.quarters, strict=True):
                if math.isfinite(quarter.low):
                    axes.plot([place, place], [quarter.low, quarter.high], color=colour, linewidth=1.2, alpha=0.7)
        axes.set_xticks(range(1, 5), ["Q1", "Q2", "Q3", "Q4"])
        axes.set_xlabel("quarter of the response")
        axes.set_ylabel("perplexity (log scale)")
        legend(figure, [arm_handle(palette, one.arm, line=True) for one in mine])
    words = "; ".join(f"{one.arm} " + ", ".join(plain(q.value) for q in one.quarters) for one in mine)
    caption = "Perplexity of the four quarters of each stream under the untuned student, 95 % intervals over traces."
    return Picture(
        slug("segments", student),
        "segments",
        student,
        caption,
        f"Line plot for {student}, perplexity in Q1 to Q4: {words}.",
        figure,
        "segments",
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
            axes.set_xlabel("change, % points of all tokens")
    words = "; ".join(
        f"{one.arm}: " + ", ".join(f"{visible(token)} {signed(change)}" for token, change in [*one.up[:3], *one.down[:3]]) for one in mine
    )
    caption = f"Tokens whose share of all tokens changes most against {mine[0].baseline}, in percent points."
    return Picture(
        slug("shift", student), "tokens", student, caption, f"Token frequency shift for {student}: {words}.", figure, "token_shift"
    )


def visible(token: str) -> str:
    """A token with its white space shown; control characters are left out."""
    shown = token.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")
    shown = "".join(one for one in shown if one.isprintable())
    return shown[:18] + "…" if len(shown) > 19 else shown
