"""A table of the report: shown on the page, and written as csv (plain values), Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qup.analysis.findings.contrasts import Contrast
from qup.analysis.findings.numbers import difference, plain, probability, value
from qup.analysis.results.cells import text
from qup.analysis.statistics.estimates import Estimate

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "−": "$-$", "–": "--", "λ": r"$\lambda$", "Δ": r"$\Delta$", "ρ": r"$\rho$", "±": r"$\pm$", "×": r"$\times$",
    "·": r"$\cdot$", "␣": r"\textvisiblespace{}", "⏎": r"$\hookleftarrow$", "→": r"$\rightarrow$", "<": r"$<$", ">": r"$>$", "∞": r"$\infty$", "\u202f": r"\,",
}  # fmt: skip


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
    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[tuple[Entry, ...]]
    group: str = ""

    def csv(self) -> str:
        """Plain values, one csv column for each name."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([name for column in self.columns for name in column.names])
        writer.writerows([text(one) for entry in row for one in entry.values] for row in self.rows)
        return stream.getvalue()

    def markdown(self) -> str:
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


def tex(words: str) -> str:
    """Words as LaTeX takes them."""
    return "".join(_TEX.get(one, one) for one in words)


def texts(*names: str) -> list[Column]:
    """Columns of words, headed as they are called."""
    return [Column(name, (name,), numeric=False) for name in names]


def word(shown: Any, arm: str = "") -> Entry:
    return Entry("" if shown is None else str(shown), ("" if shown is None else shown,), arm)


def figure(number: float | None, digits: int = 2) -> Entry:
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
    shown = f"{difference(one.total)} {probability(one.p_holm)} Holm"
    return Entry(shown, (one.total.value, one.total.low, one.total.high, one.p_holm), strong=one.p_holm < 0.05)


def three(name: str) -> tuple[str, ...]:
    return (name, f"{name}_low", f"{name}_high")
