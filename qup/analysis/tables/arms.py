"""What the arms teach: every measure, paired differences, single benchmarks."""

from __future__ import annotations

import math

from qup.analysis.findings.numbers import difference, probability
from qup.analysis.findings.survey import Survey
from qup.analysis.findings.wording import against_base
from qup.analysis.tables.table import Column, Entry, Table, differed, figure, measured, texts, three, word

_TOTAL = "total, %"


def arms_table(survey: Survey) -> Table:
    """Every arm under every setting."""
    rewards = survey.rewards
    selecting = any(one.run.arm.selects for one in survey.summaries)
    columns = [
        *texts("student", "arm", "setting"),
        Column("seeds", ("seeds",)),
    ]
    columns += [Column(_TOTAL, three("total")), Column(f"minus {survey.baseline}, points", (*three("to_baseline"), "to_baseline_p_holm"))]
    columns += [Column("minus untuned, points", (*three("to_base"), "to_base_p_holm")), Column("against untuned", ("against_base",), False)]
    columns += [Column(f"reward {name}", three(f"reward_{name}")) for name in rewards]
    columns += [Column("perplexity", three("ppl")), Column("RSR", ("rank_surprisal",)), Column("retention, 1 to 5", three("retention"))]
    columns += [Column("edited, share", ("edit_distance",)), Column("trace tokens", ("mean_tokens",)), Column("examples", ("n_train",))]
    if selecting:
        columns.append(Column("not random, share", ("share_not_random",)))
    columns.append(Column("pooled, %", three("total_pooled")))
    rows = []
    for student in survey.students:
        mine = survey.of(student)
        best = max((one.total.value for one in mine if one.evaluated), default=math.nan)
        for one in mine:
            base, total = survey.contrast(one, "base"), measured(one.total)
            row = [word(student), word(one.arm, one.arm), word(one.setting), figure(len(one.runs), 0)]
            row += [Entry(total.shown, total.values, strong=one.total.value == best), differed(survey.contrast(one, "baseline"))]
            row += [differed(base), word(against_base(base) if base is not None else "")]
            row += [measured(one.rewards.get(name)) for name in rewards]
            row += [measured(one.ppl), figure(one.figures.get("rank_surprisal")), measured(one.retention)]
            row += [
                figure(one.figures.get("edit_distance")),
                figure(one.figures.get("mean_tokens"), 0),
                figure(one.figures.get("n_train"), 0),
            ]
            if selecting:
                row.append(figure(one.figures.get("share_not_random")))
            rows.append((*row, measured(one.pooled)))
    kept = [
        index
        for index, column in enumerate(columns)
        if column.heading in ("student", "arm", "setting", _TOTAL) or any(row[index].shown for row in rows)
    ]
    caption = f"Brackets hold the 95 % interval of that number alone; differences are paired on the same problems, and their p is after Holm over the study's {_family(survey)} planned comparisons. Bold: highest total of its student, and p below 0.05. Edited: mean share of tokens that a refinement changes."
    return Table("arms", caption, tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows))


def _family(survey: Survey) -> int:
    return max((one.family for one in survey.contrasts), default=0)


def contrasts_table(survey: Survey) -> Table:
    """The study's planned contrasts."""
    rows = []
    for one in survey.contrasts:
        if one.total is None:
            rows.append((word(one.student), word(one.setting), word(one.arm, one.arm), word(one.other, one.other), Entry(f"not compared: {one.fault}", (None,) * 3), word(""), word(""), word(""), word(""), word("")))  # fmt: skip
            continue
        rows.append(
            (
                word(one.student),
                word(one.setting),
                word(one.arm, one.arm),
                word(one.other, one.other),
                Entry(difference(one.total), (one.total.value, one.total.low, one.total.high)),
                Entry(probability(one.total.p), (one.total.p,)),
                Entry(probability(one.p_holm), (one.p_holm,), strong=one.p_holm < 0.05),
                Entry(difference(one.pooled), (one.pooled.value if one.pooled else None,)),
                figure(one.detectable),
                figure(one.total.df, 0),
            )
        )
    columns = (
        *texts("student", "setting", "arm", "minus"),
        Column("total, points [95 % alone]", three("total")), Column("p alone", ("p",)), Column(f"p after Holm over {_family(survey)}", ("p_holm",)), Column("pooled, points", ("pooled",)),
        Column("detectable, points", ("detectable",)), Column("df", ("df",)),
    )  # fmt: skip
    caption = "Planned comparisons of the total, one family. Intervals are of that comparison alone. Detectable: the smallest true difference found with 80 % power at Holm's first step."
    return Table("contrasts", caption, columns, rows)


def benchmarks_table(survey: Survey) -> Table:
    """Every benchmark by itself, with its difference to the baseline."""
    rows = []
    for student in survey.students:
        for one in survey.of(student):
            if not one.evaluated:
                continue
            found = survey.contrast(one, "baseline")
            row = [word(student), word(one.arm, one.arm), word(one.setting)]
            for name in survey.benchmarks:
                apart = (found.benchmarks or {}).get(name) if found is not None else None
                row.append(measured(one.benchmarks.get(name), 1))
                row.append(
                    Entry(
                        difference(apart, 1) if apart is not None else "",
                        (apart.value, apart.low, apart.high) if apart is not None else (None,) * 3,
                    )
                )
            rows.append(tuple(row))
    columns = texts("student", "arm", "setting")
    for name in survey.benchmarks:
        columns += [Column(f"{name}, %", three(name)), Column(f"minus {survey.baseline}, points", three(f"{name}_to_baseline"))]
    return Table(
        "benchmarks",
        "Each benchmark by itself, and its paired difference to the baseline, 95 % intervals: exploratory, without correction.",
        columns,
        rows,
    )
