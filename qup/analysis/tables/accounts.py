"""What a study lost on the way, what it cost, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Sequence

from qup.analysis.findings.survey import Survey
from qup.analysis.tables.table import Column, Entry, Table, figure, texts, word


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
    columns = (*texts("where", "what"), Column("count", ("count",)), Column("of", ("of",)), Column("share", ("share",)), *texts("note"))  # fmt: skip
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
    headings = {"gpu_hours": "GPU-hours", "usd": "US dollars", "requests": "Oracle requests", "megabytes": "MB"}
    columns = tuple(Column(headings.get(name, name.replace("_", " ")), (name,), name != "stage") for name in names)
    return Table("costs", "Cost by stage; what was adopted from an equal result cost nothing again.", columns, rows)


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
