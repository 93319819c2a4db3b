"""The paper's figures beside ours: each row of ours is the same stream under the same settings, or there is none."""

from __future__ import annotations

from collections.abc import Sequence

from qup.analysis.findings.summaries import Summary
from qup.analysis.findings.survey import Survey
from qup.analysis.tables.published_figures import BATCH, GRID, LR, ROWS, SOURCE, STUDENT, Published
from qup.analysis.tables.table import Column, Entry, Table, figure, measured, texts, three, word


def published_table(survey: Survey) -> Table:
    """The paper's tables of arms."""
    mine = _ours(survey)
    rows = []
    for row in ROWS:
        arm = [one for one in mine if one.run.arm.stream == row.stream and _by_its_oracle(one, row)]
        sft, dft = _trained(arm, "sft", LR, BATCH), _trained(arm, "dft", LR, BATCH)
        any_ = sft or dft or next(iter(arm), None)
        rows.append(
            (
                word(row.label), figure(row.reward), measured(any_.rewards.get(survey.reward) if any_ else None), figure(row.sft), measured(sft.total if sft else None),
                figure(row.dft), measured(dft.total if dft else None), figure(row.ppl), measured(any_.ppl if any_ else None), figure(row.retention), measured(any_.retention if any_ else None),
            )
        )  # fmt: skip
    columns = texts("stream")
    for name in ("reward", "SFT total", "DFT total", "perplexity", "retention"):
        short = name.replace(" ", "_").lower()
        columns += [Column(f"{name}, published", (f"{short}_published",)), Column("ours", three(f"{short}_ours"))]
    return Table("published", _caption(survey, f"lr {LR:g}, batch {BATCH}"), columns, rows)


def published_grid(survey: Survey) -> Table:
    """The paper's grid of learning rate and batch size, as far as known; no rows where we have none of it."""
    mine = _ours(survey)
    rows: list[tuple[Entry, ...]] = []
    for stream, lr, batch, total in GRID:
        found = _trained([one for one in mine if one.run.arm.stream == stream], "dft", lr, batch)
        if found is not None:
            rows.append((word(stream, stream), Entry(f"{lr:g}", (lr,)), figure(batch, 0), figure(total), measured(found.total)))
    columns = (
        *texts("stream"), Column("lr", ("lr",)), Column("batch", ("batch",)), Column("DFT total, published", ("total_published",)),
        Column("ours", three("total_ours")),
    )  # fmt: skip
    return Table("published_grid", _caption(survey, "learning rate × batch size"), columns, rows)


def _ours(survey: Survey) -> list[Summary]:
    """Our arms of the student that the paper's figures are of; of the study's only student where that is another."""
    trained = [one for one in survey.summaries if not one.run.cell.is_base and not one.run.arm.selects]
    students = {str(one.run.cell.get("model.name")) for one in trained}
    return [one for one in trained if one.run.cell.get("model.name") == STUDENT] if STUDENT in students or len(students) > 1 else trained


def _by_its_oracle(one: Summary, row: Published) -> bool:
    names = f"{one.run.cell.get('oracle.name')} {one.run.cell.get('oracle.model')}".lower()
    return row.oracle in names


def _trained(arm: Sequence[Summary], objective: str, lr: float, batch: int) -> Summary | None:
    return next(
        (one for one in arm if (one.run.setting.objective, one.run.setting.lr, one.run.setting.batch_size) == (objective, lr, batch)), None
    )


def _caption(survey: Survey, settings: str) -> str:
    students = {one.student for one in _ours(survey)}
    ours = f"Ours: {', '.join(sorted(students))}." if students else "Ours has no arm of that student."
    return f"Published figures beside ours, {settings}: {SOURCE}. {ours}"
