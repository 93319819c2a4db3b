"""What changes along a setting of the student."""

from __future__ import annotations

from qup.analysis.findings.survey import Survey
from qup.analysis.tables.table import Column, Table, differed, figure, measured, texts, three, word


def axis_table(survey: Survey) -> Table:
    """What changes along a setting of the student."""
    arms = list(dict.fromkeys(contrast.arm for point in survey.axis for contrast in point.contrasts))
    prompted = list(dict.fromkeys(one.arm for point in survey.axis for one in point.prompted))
    rows = []
    for point in survey.axis:
        found = {contrast.arm: contrast for contrast in point.contrasts}
        by_arm = {one.arm: one for one in point.prompted}
        row = [word(point.family), word(point.setting), figure(point.x, 3), measured(point.base.total if point.base else None, 1)]
        row += [measured(by_arm[name].total if name in by_arm else None, 1) for name in prompted]
        row += [figure(point.solvable, 0), *[differed(found.get(arm)) for arm in arms], figure(point.detectable)]
        rows.append(tuple(row))
    axis = survey.axis[0].axis if survey.axis else "value"
    columns = [
        *texts("student", "setting"),
        Column(axis, (axis,)),
        Column("untuned, %", three("base")),
    ]
    columns += [Column(f"untuned, {name.removeprefix('base ')}, %", three(name.replace(" ", "_"))) for name in prompted]
    columns += [
        Column("solvable problems", ("n_solvable",)),
        *[Column(f"{arm}, points", (*three(f"{arm}_to_baseline"), f"{arm}_p_holm")) for arm in arms],
    ]
    columns.append(Column("detectable, points", ("detectable",)))
    return Table("axis", f"Along {axis}: differences to {survey.baseline}, and what the study could detect.", columns, rows)
