"""Where the surprise of a stream lies, and which tokens carry it."""

from __future__ import annotations

from qup.analysis.findings.survey import Survey
from qup.analysis.tables.table import Column, Table, figure, measured, texts, three, word


def segments_table(survey: Survey) -> Table:
    """Perplexity of the quarters."""
    rows = tuple((word(one.student), word(one.arm, one.arm), *[measured(quarter) for quarter in one.quarters]) for one in survey.segments)
    columns = (
        *texts("student", "arm"),
        *[Column(f"Q{q}", three(f"ppl_q{q}")) for q in range(1, 5)],
    )
    return Table("segments", "Perplexity of the four quarters of each stream under the untuned student.", columns, rows)


def tokens_table(survey: Survey) -> Table:
    """The tokens that carry each quarter's loss."""
    rows = []
    for one in survey.tokens:
        for q, tokens in enumerate(one.quarters, 1):
            for rank, token in enumerate(tokens, 1):
                rows.append(
                    (word(one.student), word(one.arm, one.arm), figure(q, 0), figure(rank, 0), word(repr(token.token)[1:-1]), figure(token.loss_share, 4), figure(token.frequency, 4), figure(token.mean_nll, 3))
                )  # fmt: skip
    names = ("student", "arm", "quarter", "rank", "token", "loss_share", "frequency", "mean_nll")
    units = {"loss_share": "share of the loss", "frequency": "share of the tokens", "mean_nll": "mean NLL, nats"}
    columns = tuple(Column(units.get(name, name), (name,), name not in ("student", "arm", "token")) for name in names)
    return Table("tokens", "The tokens that carry the loss in each quarter.", columns, rows)


def shifts_table(survey: Survey) -> Table:
    """Changes of token frequency against the baseline."""
    rows = []
    for one in survey.shifts:
        for token, change in (*one.up, *one.down):
            rows.append(
                (word(one.student), word(one.arm, one.arm), word(repr(token)[1:-1]), figure(change, 3), figure(100 * one.distance, 2))
            )
    columns = (*texts("student", "arm", "token"), Column("change, % points", ("points",)), Column("all changes, %", ("distance",)))  # fmt: skip
    return Table(
        "token_shift",
        "Tokens whose share changes most against the baseline's stream, in percent points of all tokens.",
        columns,
        rows,
    )
