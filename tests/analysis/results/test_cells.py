"""The table of cells."""

from __future__ import annotations

import csv
import math

import pytest
from rich.console import Console

from qup.analysis.results.cells import cells_table, show_cells, text, write_cells_csv
from qup.config.schema import Selection
from qup.study import Study
from tests.analysis.world import ONE, World, build_study, lab_cells

COLUMNS = [
    "model",
    "stream",
    "source",
    "refinement",
    "selection",
    "selected_by",
    "weight",
    "pool_size",
    "share_not_random",
    "objective",
    "lr",
    "batch_size",
    "seed",
    "n_problems",
    "n_train",
    "mean_tokens",
    "train_tokens",
    "steps",
    "share_truncated",
    "ppl",
    "ppl_q1",
    "ppl_q2",
    "ppl_q3",
    "ppl_q4",
    "nll_per_char",
    "rank_surprisal",
    "retention",
    "n_correct_stream",
    "train_nll_first",
    "train_nll_last",
    "total",
    "total_pooled",
    "reward_lab_outcome",
    "reward_lab_steps",
    "easy",
    "hard",
    "key_train",
    "key_stream",
    "key_evaluate",
    "key_rollouts",
]


def test_the_table_of_cells_has_the_promised_columns(lab) -> None:
    folder, store, page = lab
    with (page.parent / "cells.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert set(COLUMNS) <= set(rows[0])
    assert len(rows) == 22
    base = [row for row in rows if row["stream"] == "base"]
    assert len(base) == 2
    assert all(row["objective"] == row["source"] == row["ppl"] == "" for row in base)
    assert all(row["total"] for row in rows)
    assert {row["missing"] for row in rows} == {""}
    assert len(cells_table(Study.load(folder), store)) == 22


@pytest.mark.parametrize(
    ("width", "left"), [(120, ""), (80, "no room for n, kept"), (60, "no room for n, kept, ppl, lab_steps, lab_outcome")]
)
def test_the_table_fits_a_terminal(lab, capsys, width: int, left: str) -> None:
    """A line a cell whatever the width; what is left out is named, and never the total."""
    show_cells(cells_table(Study.load(lab[0]), lab[1]), Console(width=width))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:23])) <= width
    assert lines[0].rstrip().endswith("total %")
    assert len(lines) == 23 + bool(left)
    if left:
        assert lines[-1] == f"{left}; cells.csv has them"


def test_what_a_selection_goes_by_is_told_and_shown(tmp_path, capsys) -> None:
    asked = [
        Selection(seed=0), Selection(name="measure", measure="lark", keep=4, seed=0), Selection(name="reward", reward="lab_steps", seed=0),
        Selection(name="joint", reward="lab_steps", seed=0), Selection(name="perplexity", seed=0),
    ]  # fmt: skip
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft",), selections=asked)))
    rows = cells_table(Study.load(folder), store)
    by = [(row["selection"], row["selected_by"]) for row in rows if row["stream"] != "base"]
    assert by == [
        ("random", None), ("measure", "lark"), ("reward", "lab_steps"), ("joint", "lab_steps + mean_logprob"), ("perplexity", None),
    ]  # fmt: skip
    show_cells(rows, Console(width=200))
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[2:4] == ["select", "by"]
    assert lines[2].split()[2:4] == ["measure", "lark"]


def test_floats_read_back_and_nothing_is_empty() -> None:
    assert [text(value) for value in (None, math.nan, 0.1 + 0.2, 3e-7, 5, "a", True)] == ["", "", "0.3", "3e-07", "5", "a", "True"]


def test_cells_are_written_beside_and_renamed(tmp_path) -> None:
    write_cells_csv(tmp_path / "x" / "cells.csv", [{"a": 1, "b": None}, {"a": 2.5, "c": "y,z"}])
    assert (tmp_path / "x" / "cells.csv").read_text() == 'a,b,c\n1,,\n2.5,,"y,z"\n'
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["cells.csv"]
