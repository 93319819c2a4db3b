"""The report's tables that tell of training, selection, a student's axis, losses, cost and provenance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qup.analysis.frontier import Frontier
from qup.analysis.survey import Survey
from qup.analysis.table import Column, Entry, Table, differed, figure, measured, three, word


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
    names = (
        "student",
        "arm",
        "setting",
        "steps",
        "train_tokens",
        "trace_tokens",
        "share_truncated",
        "train_nll_first",
        "train_nll_last",
        "adaptation_cost",
    )
    columns = tuple(Column(name.replace("_", " "), (name,), name not in ("student", "arm", "setting")) for name in names)
    caption = "Training. NLL in nats a token over the first and last 5 % of steps; adaptation cost is the mean NLL above its end level. Trace length confounds all of these."
    return Table("training", caption, columns, tuple(rows))


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
    columns = [Column("selection", ("selection",), False), Column("not random", ("share_not_random",))]
    columns += [Column(f"{name} ({'used' if name == one.used_reward else 'not used'})", three(f"reward_{name}")) for name in rewards]
    columns += [Column("NLL a token", ("nll",)), Column("total", three("total"))]
    columns += [Column(f"Δ {other}", (*three(f"to_{other}"), f"to_{other}_p_holm")) for other in references]
    name = f"selection_{one.student}_{one.setting}_{one.stream}"
    return Table(
        name, f"{one.student}, {one.setting}, {one.stream}: every selection, Holm over this grid.", tuple(columns), tuple(rows), one.student
    )


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
        Column("student", ("student",), False),
        Column("setting", ("setting",), False),
        Column(axis, (axis,)),
        Column("untuned", three("base")),
    ]
    columns += [Column(f"untuned, {name.removeprefix('base ')}", three(name.replace(" ", "_"))) for name in prompted]
    columns += [
        Column("solvable problems", ("n_solvable",)),
        *[Column(f"Δ {arm}", (*three(f"{arm}_to_baseline"), f"{arm}_p_holm")) for arm in arms],
    ]
    columns.append(Column("detectable", ("detectable",)))
    return Table("axis", f"Along {axis}: differences to {survey.baseline}, and what the study could detect.", tuple(columns), tuple(rows))


def losses_table(survey: Survey) -> Table:
    """What was dropped, cut, retried."""
    rows = tuple(
        (
            word(one.where),
            word(one.what),
            figure(one.count, 0),
            figure(one.of, 0),
            Entry(f"{100 * one.share:.1f} %", (one.share,)),
            word(one.note),
        )
        for one in survey.losses
    )
    columns = (Column("where", ("where",), False), Column("what", ("what",), False), Column("count", ("count",)), Column("of", ("of",)), Column("share", ("share",)), Column("note", ("note",), False))  # fmt: skip
    return Table("losses", "What was dropped, cut, retried, or stood in for.", columns, rows)


def costs_table(survey: Survey) -> Table:
    """What it took."""
    rows = [
        (word(one.stage), figure(one.results, 0), figure(one.hours, 3), figure(one.gpu_hours, 3), figure(one.usd), figure(one.oracle_requests, 0), figure(one.input_tokens, 0), figure(one.output_tokens, 0), figure(one.bytes / 1e6, 1))
        for one in survey.costs
    ]  # fmt: skip
    sums = [
        sum(getattr(one, name) for one in survey.costs)
        for name in ("results", "hours", "gpu_hours", "usd", "oracle_requests", "input_tokens", "output_tokens", "bytes")
    ]
    if rows:
        rows.append(
            (
                word("all"),
                figure(sums[0], 0),
                figure(sums[1], 3),
                figure(sums[2], 3),
                figure(sums[3]),
                figure(sums[4], 0),
                figure(sums[5], 0),
                figure(sums[6], 0),
                figure(sums[7] / 1e6, 1),
            )
        )
    names = ("stage", "results", "hours", "gpu_hours", "usd", "requests", "input_tokens", "output_tokens", "megabytes")
    columns = tuple(Column(name.replace("_", " "), (name,), name != "stage") for name in names)
    return Table("costs", "Cost by stage; what was adopted from an equal result cost nothing again.", columns, tuple(rows))


def origins_table(survey: Survey) -> Table:
    """Every stored result behind the numbers."""
    rows = tuple(
        (word(one.stage), word(one.key), word(one.digest[:12]), word(one.code[:12]), figure(one.seconds, 1), word(one.study), word(one.adopted_from), Entry(_listed(one.cells), (" ".join(one.cells),)))
        for one in survey.origins
    )  # fmt: skip
    names = ("stage", "key", "digest", "code", "seconds", "study", "adopted_from", "cells")
    columns = tuple(Column(name.replace("_", " "), (name,), name == "seconds") for name in names)
    return Table("provenance", "Where every number comes from: stage, key, digest of the data, digest of the code.", columns, rows)


def _listed(cells: Sequence[str]) -> str:
    return f"{cells[0]} and {len(cells) - 1} more" if len(cells) > 1 else "".join(cells)
