"""The report's tables, once: written as csv (plain values), Markdown and LaTeX, and shown on the page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qup.analysis.cells import text
from qup.analysis.contrasts import Contrast
from qup.analysis.frontier import Frontier
from qup.analysis.published import ROWS, SOURCE
from qup.analysis.statistics import Estimate
from qup.analysis.summaries import Summary
from qup.analysis.survey import Survey
from qup.analysis.wording import against_base, difference, plain, probability, signed, value


@dataclass(frozen=True)
class Entry:
    """One cell of a table: what is shown, and the plain values that csv gets under this column's names."""

    shown: str
    values: tuple[Any, ...]
    arm: str = ""
    """The arm whose colour marks it."""
    strong: bool = False


@dataclass(frozen=True)
class Column:
    """A heading, and the csv columns that its entries fill."""

    heading: str
    names: tuple[str, ...]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table under one name."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    group: str = ""

    def csv(self) -> str:
        """Plain values, one csv column for each name."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([name for column in self.columns for name in column.names])
        writer.writerows([text(one) for entry in row for one in entry.values] for row in self.rows)
        return stream.getvalue()

    def markdown(self) -> str:
        """As shown."""
        lines = [[column.heading for column in self.columns], ["---:" if column.numeric else "---" for column in self.columns]]
        lines += [[entry.shown.replace("|", "\\|").replace("\n", " ") for entry in row] for row in self.rows]
        return f"{self.caption}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def latex(self) -> str:
        """A booktabs tabular in a table environment."""
        layout = "".join("r" if column.numeric else "l" for column in self.columns)
        head = " & ".join(tex(column.heading) for column in self.columns)
        body = "".join(" & ".join(tex(entry.shown) for entry in row) + " \\\\\n" for row in self.rows)
        return (
            f"% \\usepackage{{booktabs}}\n\\begin{{table}}\n\\caption{{{tex(self.caption)}}}\n\\begin{{tabular}}{{{layout}}}\n\\toprule\n"
            f"{head} \\\\\n\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
        )


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "−": "$-$", "–": "--", "λ": r"$\lambda$", "Δ": r"$\Delta$", "ρ": r"$\rho$", "±": r"$\pm$", "×": r"$\times$",
    "·": r"$\cdot$", "␣": r"\textvisiblespace{}", "⏎": r"$\hookleftarrow$", "→": r"$\rightarrow$", "<": r"$<$", ">": r"$>$", "∞": r"$\infty$",
}  # fmt: skip


def tex(words: str) -> str:
    """Words as LaTeX takes them."""
    return "".join(_TEX.get(one, one) for one in words)


def word(shown: Any, arm: str = "") -> Entry:
    """A label."""
    return Entry("" if shown is None else str(shown), ("" if shown is None else shown,), arm)


def figure(number: float | None, digits: int = 2) -> Entry:
    """A plain number."""
    known = number if number is not None and math.isfinite(number) else None
    return Entry(plain(number, digits) if known is not None else "", (known,))


def measured(one: Estimate | None, digits: int = 2) -> Entry:
    """A value with its interval."""
    known = one is not None and math.isfinite(one.value)
    return Entry(value(one, digits) if known else "", (one.value, one.low, one.high) if one is not None and known else (None, None, None))


def differed(one: Contrast | None) -> Entry:
    """A paired difference with its interval and Holm's p."""
    if one is None or one.total is None:
        return Entry("", (None, None, None, None))
    shown = f"{difference(one.total)} {probability(one.p_holm)}"
    return Entry(shown, (one.total.value, one.total.low, one.total.high, one.p_holm), strong=one.p_holm < 0.05)


def three(name: str) -> tuple[str, ...]:
    return (name, f"{name}_low", f"{name}_high")


def arms_table(survey: Survey) -> Table:
    """Every arm under every setting."""
    rewards = survey.rewards
    selecting = any(one.run.arm.selects for one in survey.summaries)
    columns = [
        Column("student", ("student",), False),
        Column("arm", ("arm",), False),
        Column("setting", ("setting",), False),
        Column("seeds", ("seeds",)),
    ]
    columns += [Column("examples", ("n_train",)), Column("tokens", ("mean_tokens",))]
    columns += [Column(f"reward {name}", three(f"reward_{name}")) for name in rewards]
    columns += [Column("perplexity", three("ppl")), Column("RSR", ("rank_surprisal",)), Column("retention", three("retention"))]
    if selecting:
        columns.append(Column("not random", ("share_not_random",)))
    columns += [Column("total", three("total")), Column("pooled", three("total_pooled"))]
    columns += [
        Column(f"Δ {survey.baseline}", (*three("to_baseline"), "to_baseline_p_holm")),
        Column("Δ base", (*three("to_base"), "to_base_p_holm")),
    ]
    columns.append(Column("against base", ("against_base",), False))
    rows = []
    for student in survey.students:
        mine = survey.of(student)
        best = max((one.total.value for one in mine if one.evaluated), default=math.nan)
        for one in mine:
            base = survey.contrast(one, "base")
            row = [word(student), word(one.arm, one.arm), word(one.setting), figure(len(one.runs), 0)]
            row += [figure(one.figures.get("n_train"), 0), figure(one.figures.get("mean_tokens"), 0)]
            row += [measured(one.rewards.get(name)) for name in rewards]
            row += [measured(one.ppl), figure(one.figures.get("rank_surprisal")), measured(one.retention)]
            if selecting:
                row.append(figure(one.figures.get("share_not_random")))
            total = measured(one.total)
            row += [Entry(total.shown, total.values, strong=one.total.value == best), measured(one.pooled)]
            row += [differed(survey.contrast(one, "baseline")), differed(base), word(against_base(base) if base is not None else "")]
            rows.append(tuple(row))
    kept = [
        index
        for index, column in enumerate(columns)
        if column.heading in ("student", "arm", "setting", "total") or any(row[index].shown for row in rows)
    ]
    caption = "Intervals are 95 %; differences are paired on the same problems, p by Holm over the study's planned contrasts. Bold: highest total of its student, and p below 0.05."
    return Table("arms", caption, tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows))


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
        Column("student", ("student",), False), Column("setting", ("setting",), False), Column("arm", ("arm",), False), Column("minus", ("minus",), False),
        Column("Δ total", three("total")), Column("p", ("p",)), Column("p after Holm", ("p_holm",)), Column("Δ pooled", ("pooled",)),
        Column("detectable", ("detectable",)), Column("df", ("df",)),
    )  # fmt: skip
    caption = (
        "Planned contrasts of the total, one family. Detectable: the smallest true difference found with 80 % power at Holm's first step."
    )
    return Table("contrasts", caption, columns, tuple(rows))


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
    columns = [Column("student", ("student",), False), Column("arm", ("arm",), False), Column("setting", ("setting",), False)]
    for name in survey.benchmarks:
        columns += [Column(name, three(name)), Column(f"Δ {name}", three(f"{name}_to_baseline"))]
    return Table(
        "benchmarks",
        "Each benchmark by itself, and its paired difference to the baseline: exploratory, without correction.",
        tuple(columns),
        tuple(rows),
    )


def segments_table(survey: Survey) -> Table:
    """Perplexity of the quarters."""
    rows = tuple((word(one.student), word(one.arm, one.arm), *[measured(quarter) for quarter in one.quarters]) for one in survey.segments)
    columns = (
        Column("student", ("student",), False),
        Column("arm", ("arm",), False),
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
    columns = tuple(Column(name.replace("_", " "), (name,), name not in ("student", "arm", "token")) for name in names)
    return Table("tokens", "The tokens that carry the loss in each quarter.", columns, tuple(rows))


def shifts_table(survey: Survey) -> Table:
    """Changes of token frequency against the baseline."""
    rows = []
    for one in survey.shifts:
        for token, change in (*one.up, *one.down):
            rows.append(
                (word(one.student), word(one.arm, one.arm), word(repr(token)[1:-1]), figure(change, 3), figure(100 * one.distance, 2))
            )
    columns = (Column("student", ("student",), False), Column("arm", ("arm",), False), Column("token", ("token",), False), Column("points", ("points",)), Column("all changes, %", ("distance",)))  # fmt: skip
    return Table(
        "token_shift",
        "Tokens whose share changes most against the baseline's stream, in percent points of all tokens.",
        columns,
        tuple(rows),
    )


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
    columns = [Column("student", ("student",), False), Column("setting", ("setting",), False), Column("arms", ("arms",))]
    columns += [Column(f"ρ {measure}", (f"rho {measure}", f"n {measure}", f"p {measure}")) for measure in measures]
    caption = "Spearman's ρ of each measure with the total across arms, exact permutation p. Below 8 arms nothing is claimed."
    return Table("correlations", caption, tuple(columns), tuple(rows))


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
        "mean_tokens",
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
        limits = [contrast.detectable for contrast in point.contrasts if math.isfinite(contrast.detectable)]
        row = [word(point.family), word(point.setting), figure(point.x, 3), measured(point.base.total if point.base else None, 1)]
        row += [measured(by_arm[name].total if name in by_arm else None, 1) for name in prompted]
        row += [figure(point.solvable, 0), *[differed(found.get(arm)) for arm in arms], figure(max(limits) if limits else None)]
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


def published_table(survey: Survey) -> Table:
    """The paper's figures beside ours."""
    ours: dict[tuple[str, str], Summary] = {}
    for one in survey.summaries:
        if not one.run.cell.is_base and not one.run.arm.selects:
            ours.setdefault((one.run.arm.stream, one.run.setting.objective), one)
    rows = []
    for row in ROWS:
        sft, dft = ours.get((row.stream, "sft")), ours.get((row.stream, "dft"))
        any_ = sft or dft
        rows.append(
            (
                word(row.label), figure(row.reward), measured(any_.rewards.get(survey.reward) if any_ else None), figure(row.sft), measured(sft.total if sft else None),
                figure(row.dft), measured(dft.total if dft else None), figure(row.ppl), measured(any_.ppl if any_ else None), figure(row.retention), measured(any_.retention if any_ else None),
            )
        )  # fmt: skip
    columns = [Column("stream", ("stream",), False)]
    for name in ("reward", "SFT total", "DFT total", "perplexity", "retention"):
        short = name.replace(" ", "_").lower()
        columns += [Column(f"{name}, published", (f"{short}_published",)), Column("ours", three(f"{short}_ours"))]
    return Table("published", f"Published figures beside ours: {SOURCE}.", tuple(columns), tuple(rows))


def all_tables(survey: Survey, *, published: bool) -> list[Table]:
    """Every table that has rows."""
    made = [
        arms_table(survey), contrasts_table(survey), benchmarks_table(survey), segments_table(survey), tokens_table(survey), shifts_table(survey),
        ties_table(survey), training_table(survey), *[selection_table(survey, one) for one in survey.frontiers], axis_table(survey), losses_table(survey),
        costs_table(survey), origins_table(survey),
    ]  # fmt: skip
    if published:
        made.insert(1, published_table(survey))
    return [table for table in made if table.rows]
