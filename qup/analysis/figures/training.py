"""What training costs a student: curves, and utility of weights kept on the way."""

from __future__ import annotations

from qup.analysis.figures.picture import HIGH, WIDE, Picture, arm_handle, legend, palette_of, slug, utility_axis
from qup.analysis.figures.style import drawing
from qup.analysis.findings.numbers import plain
from qup.analysis.findings.survey import Survey

MOST_CURVES = 24


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
                axes.plot(one.step, one.nll, color=palette.colour(one.arm), linestyle=palette.dashes(one.arm), linewidth=1.3, alpha=0.9)
                axes.plot(one.step[-1], one.nll[-1], palette.marker(one.arm), color=palette.colour(one.arm), markersize=5)
            axes.set_xlabel("optimizer step")
            axes.set_ylabel("training NLL, nats a token")
            axes.set_ylim(bottom=0)
            legend(figure, [arm_handle(palette, arm, line=True) for arm in dict.fromkeys(one.arm for one in shown)])
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
        for _, _setting, arm, points in mine:
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=palette.colour(arm),
                marker=palette.marker(arm),
                linestyle=palette.dashes(arm),
                markersize=5,
            )
        axes.set_xlabel("share of the run's steps")
        axes.set_ylabel(utility_axis(survey))
        legend(figure, [arm_handle(palette, arm, f"{arm} {setting}", line=True) for _, setting, arm, _ in mine])
    words = "; ".join(f"{arm} {setting}: " + ", ".join(f"{plain(y, 1)} at {x:g}" for x, y in points) for _, setting, arm, points in mine)
    return Picture(
        slug("during", student),
        "training",
        student,
        "Total of weights kept during training (points only: one evaluation each).",
        f"Line plot for {student}: {words}.",
        figure,
    )
