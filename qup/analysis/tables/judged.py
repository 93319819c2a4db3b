"""What would have told us, in numbers."""

from __future__ import annotations

import math

from qup.analysis.findings.judged import Judged, Judgement, Span
from qup.analysis.findings.numbers import plain, signed
from qup.analysis.findings.survey import Survey
from qup.analysis.tables.table import Column, Entry, Table, figure, texts, three, word


def judged_table(survey: Survey) -> Table:
    """One line a student, setting and measure, the cheapest to follow first."""
    rows = [_row(one, measure) for one in survey.judgements for measure in sorted(one.measures, key=_order)]
    columns = [
        *texts("student", "setting", "measure", "better"),
        Column("arms", ("arms",)),
        Column("τ with utility", three("tau")),
        Column("right pairs", ("right", "decided", "undecided")),
        Column("τ given length", ("tau_given_length",)),
        *texts("picks"),
        Column("regret, points", three("regret")),
        Column("seconds", ("seconds",)),
        Column("GPU-hours", ("gpu_hours",)),
        Column("regret at n problems", ("at",), False),
    ]
    caption = (
        "Each measure as a predictor of utility over a student's arms: Kendall's τ_b over the pairs of arms that the study can tell apart, "
        "the share of them ordered rightly, and the points lost by training on the arm it would have picked. Intervals resample problems of "
        "streams and of benchmarks (and seeds, from three on). Below 8 arms nothing is claimed."
    )
    return Table("judged", caption, columns, rows)


def _order(one: Judged) -> tuple[float, float]:
    return (one.regret.value if math.isfinite(one.regret.value) else math.inf, -one.tau.value if math.isfinite(one.tau.value) else math.inf)


def _row(one: Judgement, measure: Judged) -> tuple[Entry, ...]:
    at = "; ".join(f"{entry.problems}: {plain(entry.regret, 1)}" for entry in measure.at)
    share = f"{plain(100 * measure.right, 0)} % of {one.decided}" + (f", {one.undecided} undecided" if one.undecided else "")
    return (
        word(one.student), word(one.setting), word(measure.measure), word(measure.better), figure(len(one.arms), 0),
        _span(measure.tau, True), Entry(share if math.isfinite(measure.right) else "", (_known(measure.right), one.decided, one.undecided)),
        figure(measure.given_length), word(measure.pick), _span(measure.regret, False), figure(measure.seconds, 1), figure(measure.gpu_hours, 3),
        Entry(at, (at,)),
    )  # fmt: skip


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _span(one: Span, sign: bool) -> Entry:
    write = signed if sign else plain
    if not math.isfinite(one.value):
        return Entry("", (None, None, None))
    shown = write(one.value) + (f" [{write(one.low)}, {write(one.high)}]" if math.isfinite(one.low) else "")
    return Entry(shown, (one.value, _known(one.low), _known(one.high)))
