"""Which measures go with utility across arms."""

from __future__ import annotations

import math

from qup.analysis.findings.numbers import probability, signed
from qup.analysis.findings.survey import Survey
from qup.analysis.tables.table import Column, Entry, Table, figure, texts, word


def ties_table(survey: Survey) -> Table:
    """Rank correlations with the total, one line a student and setting."""
    measures = list(dict.fromkeys(one.measure for one in survey.ties))
    rows = []
    for student, setting in dict.fromkeys((one.student, one.setting) for one in survey.ties):
        mine = {one.measure: one.correlation for one in survey.ties if (one.student, one.setting) == (student, setting)}
        row = [word(student), word(setting), figure(max(found.n for found in mine.values()), 0)]
        for measure in measures:
            found = mine.get(measure)
            if found is None or not math.isfinite(found.rho):
                row.append(Entry("", (None, None, None)))
                continue
            claim = probability(found.p) + ("" if found.exact else " (Monte Carlo)") if found.claimed else "no claim"
            fewer = f", {found.n} arms" if found.n != row[2].values[0] else ""
            row.append(
                Entry(
                    f"{signed(found.rho)} [{claim}{fewer}]", (found.rho, found.n, found.p if found.claimed else None), strong=found.p < 0.05
                )
            )
        rows.append(tuple(row))
    columns = [*texts("student", "setting"), Column("arms", ("arms",))]
    columns += [Column(f"ρ {measure}", (f"rho {measure}", f"n {measure}", f"p {measure}")) for measure in measures]
    caption = "Spearman's ρ of each measure with the total across arms, exact permutation p. Below 8 arms nothing is claimed."
    return Table("correlations", caption, columns, rows)
