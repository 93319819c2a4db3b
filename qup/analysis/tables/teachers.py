"""What each teacher is like and teaches: one row a teacher of a student."""

from __future__ import annotations

import numpy as np

from qup.analysis.findings.survey import Survey
from qup.analysis.tables.table import Column, Table, figure, measured, texts, three, word


def teachers_table(survey: Survey) -> Table:
    """One row a teacher of a student; none where no stream has two."""
    rows = []
    objectives = list(dict.fromkeys(run.setting.label for run in survey.runs if not run.cell.is_base))
    streams = list(dict.fromkeys(name for found in survey.teachers.values() for one in found.values() for name in one.share))
    for student, found in survey.teachers.items():
        for name, one in found.items():
            row = [word(student), word(name), figure(one.right), *[figure(one.share.get(stream)) for stream in streams]]
            row += [measured(one.reward), figure(one.nll, 3), figure(one.ratio), figure(one.tokens, 1)]
            row += [figure(float(np.mean(one.totals[label])) if one.totals.get(label) else None, 1) for label in objectives]
            rows.append(tuple(row))
    columns = [
        *texts("student", "teacher"),
        Column("right before verification", ("right",)),
    ]
    columns += [Column(f"share of {stream}", (f"share_{stream}",)) for stream in streams]
    columns += [
        Column(f"reward {survey.reward}", three("reward")),
        Column("NLL, nats a token", ("nll",)),
        Column("rank-surprisal", ("rank_surprisal",)),
    ]
    columns += [Column("tokens", ("tokens",)), *[Column(f"{label} on it alone, %", (f"total_{label}",)) for label in objectives]]
    return Table(
        "teachers",
        "Teachers: how often right before verification, their part of each stream that draws from several, what their traces are like "
        "(mean over problems; rank-surprisal of sums), and what training on one teacher alone came to (mean over seeds).",
        columns,
        rows,
    )
