"""What each selection chooses and teaches."""

from __future__ import annotations

from qup.analysis.findings.frontier import Frontier
from qup.analysis.findings.survey import Survey
from qup.analysis.tables.table import Column, Table, differed, figure, measured, texts, three, word


def selection_table(survey: Survey, one: Frontier) -> Table:
    """One frontier."""
    rewards = [name for name in (*one.other_rewards, one.used_reward) if name]
    references = list(dict.fromkeys(contrast.other for contrast in one.contrasts))
    rows = []
    for point in one.points:
        row = [
            word(point.arm, point.arm),
            figure(point.figures.get("share_not_random")),
            *[measured(point.rewards.get(name)) for name in rewards],
        ]
        row += [
            figure(point.figures.get("nll"), 3),
            measured(point.total),
            *[differed(one.contrast(point.arm, other)) for other in references],
        ]
        rows.append(tuple(row))
    columns = [*texts("selection"), Column("not random, share", ("share_not_random",))]
    columns += [Column(f"reward {name} ({'used' if name == one.used_reward else 'not used'})", three(f"reward_{name}")) for name in rewards]
    columns += [Column("NLL, nats a token", ("nll",)), Column("total, %", three("total"))]
    columns += [Column(f"minus {other}, points", (*three(f"to_{other}"), f"to_{other}_p_holm")) for other in references]
    name = f"selection_{one.student}_{one.setting}_{one.stream}"
    return Table(name, f"{one.student}, {one.setting}, {one.stream}: every selection, Holm over this grid.", columns, rows, one.student)
