"""What would have told us: regret against cost, a point a measure."""

from __future__ import annotations

import math

from qup.analysis.figures.labels import spread_labels
from qup.analysis.figures.picture import HIGH, WIDE, Picture, log_axis, slug
from qup.analysis.figures.style import INK, MUTED, drawing
from qup.analysis.findings.judged import Judged, Judgement
from qup.analysis.findings.numbers import plain
from qup.analysis.findings.survey import Survey

LEAST_SECONDS = 0.1


def judged_pictures(survey: Survey) -> list[Picture]:
    """One a student and setting that has something to show."""
    return [picture for one in survey.judgements if (picture := _picture(one)) is not None]


def _picture(one: Judgement) -> Picture | None:
    shown = [measure for measure in one.measures if math.isfinite(measure.regret.value)]
    if len(shown) < 2:
        return None
    with drawing() as make:
        figure = make(figsize=(WIDE + 1.0, HIGH), layout="constrained")
        axes = figure.add_subplot()
        labels = []
        for cost, members in _by_cost(shown).items():
            for index, measure in enumerate(members):
                x = cost * 1.12 ** (index - (len(members) - 1) / 2)
                reward = measure.measure.startswith("reward")
                low = max(measure.regret.value - measure.regret.low, 0.0) if math.isfinite(measure.regret.low) else 0.0
                high = max(measure.regret.high - measure.regret.value, 0.0) if math.isfinite(measure.regret.high) else 0.0
                axes.errorbar(
                    x, measure.regret.value, yerr=[[low], [high]], fmt="s" if reward else "o", color=MUTED if reward else INK,
                    markerfacecolor="none" if reward else INK, markersize=6, elinewidth=0.9,
                )  # fmt: skip
                labels.append((x, measure.regret.value, measure.measure, INK))
        log_axis(axes, "x")
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel("seconds that the measure cost, all arms together")
        axes.set_ylabel("regret of following it, points")
        axes.margins(0.2, 0.12)
        axes.autoscale_view()
        spread_labels(axes, labels, size=7.5)
    words = "; ".join(f"{measure.measure} {plain(measure.regret.value, 1)} points, {plain(measure.seconds, 0)} s" for measure in shown)
    place = ", ".join(part for part in (one.student, one.setting) if part)
    claim = "" if one.claimed else " Too few arms for a claim."
    caption = (
        f"{place}: utility lost by training on the arm that a measure would have picked, over {len(one.arms)} arms, with 95 % intervals. "
        f"Measures of one pass cost the same and are drawn side by side; open squares are rewards.{claim}"
    )
    return Picture(
        slug("judged", one.student, one.setting),
        "judged",
        one.student,
        caption,
        f"Regret against cost for {place}: {words}.",
        figure,
        "judged",
    )


def _by_cost(shown: list[Judged]) -> dict[float, list[Judged]]:
    made: dict[float, list[Judged]] = {}
    for measure in shown:
        made.setdefault(max(measure.seconds, LEAST_SECONDS) if math.isfinite(measure.seconds) else LEAST_SECONDS, []).append(measure)
    return made
