"""What training cost the student."""

from __future__ import annotations

import math

from qup.analysis.findings.survey import Survey
from qup.analysis.tables.table import Column, Table, figure, texts, word


def training_table(survey: Survey) -> Table:
    """What training cost the student."""
    excess = {(one.student, one.setting, one.arm): one.excess for one in survey.curves}
    rows = []
    for one in survey.summaries:
        if one.run.cell.is_base or not math.isfinite(one.figures.get("steps", math.nan)):
            continue
        get = one.figures.get
        rows.append(
            (
                word(one.student), word(one.arm, one.arm), word(one.setting), figure(get("steps"), 0), figure(get("train_tokens"), 0), figure(get("mean_tokens"), 0),
                figure(get("share_truncated"), 3), figure(get("train_nll_first"), 3), figure(get("train_nll_last"), 3),
                figure(excess.get((one.student, one.setting, one.arm)), 3),
            )
        )  # fmt: skip
    columns = (
        *texts("student", "arm", "setting"), Column("steps", ("steps",)),
        Column("tokens trained on", ("train_tokens",)), Column("tokens a trace", ("trace_tokens",)), Column("cut, share", ("share_truncated",)),
        Column("NLL at first, nats", ("train_nll_first",)), Column("NLL at last, nats", ("train_nll_last",)), Column("adaptation cost, nats", ("adaptation_cost",)),
    )  # fmt: skip
    caption = "Training. NLL is a mean a token, over the first and last 5 % of steps; adaptation cost is the mean NLL above its end level. Trace length confounds all of these."
    return Table("training", caption, columns, rows)
