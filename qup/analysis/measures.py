"""`qup measures STUDY`: what would have told us, on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as Grid

from qup.analysis.findings.judged import sentence
from qup.analysis.findings.survey import survey
from qup.analysis.results.shelf import Shelf
from qup.analysis.tables.judged import judged_table
from qup.errors import InputError
from qup.store import Store
from qup.study import Study


def show_measures(study: Study, console: Console) -> int:
    """Prints a sentence a student and setting, and the table; InputError where nothing can be judged yet."""
    made = survey(study, Shelf(Store(study.store)))
    if not made.judgements:
        raise InputError(
            f"{study.name}: nothing to judge; at least three arms of a student have to be scored and evaluated under one setting (qup status {study.name})"
        )
    for one in made.judgements:
        console.print(sentence(one))
    table = judged_table(made)
    grid = Grid()
    for column in table.columns:
        grid.add_column(column.heading, justify="right" if column.numeric else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(entry.shown for entry in row))
    console.print(grid)
    return 0
