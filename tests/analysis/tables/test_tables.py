"""Tables: what stands in them, in three formats."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest

from qup.analysis.findings.survey import survey
from qup.analysis.page.render import render
from qup.analysis.report import all_tables, build
from qup.analysis.results.shelf import Shelf
from qup.analysis.tables.published_figures import is_paper
from qup.analysis.tables.table import tex
from qup.config.schema import Selection
from qup.study import Study
from tests.analysis.world import ONE, SURPRISE, World, build_study, content, lab_cells


def test_a_selection_study_has_its_frontier(tmp_path) -> None:
    joint = [Selection(name="joint", reward="lab_outcome", weight=weight, seed=0) for weight in (0.5, 1.0, 2.0)]
    ends = [Selection(seed=0), Selection(name="reward", reward="lab_outcome", seed=0), Selection(name="perplexity", seed=0)]
    cells = lab_cells(**ONE, arms=("slm_rft",), selections=[*ends, *joint], dev={"easy": 20}, benchmarks={"easy": 150, "hard": 80})
    page = build(*build_study(tmp_path, World(cells)))
    assert "not used to select" in content(page)
    assert "kept apart" in content(page)
    assert "correlated at +0.21" in content(page)
    table = (page.parent / "tables" / "selection_lab_foreign_sft_slm_rft.md").read_text()
    order = re.findall(r"\| (slm_rft[^|]*?) \|", table)
    assert order == ["slm_rft", "slm_rft · reward", *[f"slm_rft · joint λ={w}" for w in ("0.5", "1", "2")], "slm_rft · perplexity"]
    summary = json.loads((page.parent / "summary.json").read_text())
    assert len(summary["selection"][0]["contrasts"]) == 5 + 4 + 4


def test_refinements_have_their_edit_distance(lab) -> None:
    rows = list(csv.DictReader((lab[2].parent / "tables" / "arms.csv").open()))
    edited = {row["arm"]: row["edit_distance"] for row in rows if row["student"] == "lab_foreign" and row["setting"] != "DFT"}
    assert float(edited["oracle_refined"]) == pytest.approx(SURPRISE["oracle_refined"] / 4)
    assert edited["slm_rft"] == edited["oracle_synthesized"] == ""


def test_published_figures_stand_beside_ours_in_paper_studies(tmp_path) -> None:
    """Each beside the same stream, by the same Oracle, at the same learning rate and batch size; else beside nothing."""
    trainers = [{"lr": lr, "batch_size": batch} for lr in (2e-5, 5e-5) for batch in (128, 256)]
    cells = lab_cells(arms=("slm_rft",), objectives=("dft",), students=(("qwen2_5_math_1_5b", 0.0),), trainers=trainers)
    aligned = lab_cells(arms=("style_aligned",), objectives=("dft",), students=(("qwen2_5_math_1_5b", 0.0),), trainers=trainers[-1:])
    cells += [replace(aligned[1], oracle=replace(aligned[1].oracle, name=name, model=name)) for name in ("gpt-5.2", "qwen2.5-math-72b")]
    other = lab_cells(arms=("slm_rft",), objectives=("dft",), students=(("a_other", 0.3),), trainers=trainers[-1:])
    folder, store = build_study(tmp_path, World([*other, *cells]), "paper_table1")
    made = survey(Study.load(folder), Shelf(store))
    tables = {table.name: table for table in all_tables(made, published=is_paper(made.study.name))}
    page = render(made, list(tables.values()), [], {})
    assert "as published" in page
    assert "37.06" in page
    ours = {row["stream"]: row["dft_total_ours"] for row in csv.DictReader(tables["published"].csv().splitlines())}

    def total(arm: str, batch: int) -> float:
        mine = [one for one in made.summaries if (one.run.cell.get("model.name"), one.arm) == ("qwen2_5_math_1_5b", arm)]
        (found,) = [one for one in mine if (one.run.setting.lr, one.run.setting.batch_size) == (5e-5, batch)]
        return found.total.value

    assert float(ours["SLM-RFT"]) == pytest.approx(total("slm_rft", 256))
    assert float(ours["Style-Aligned (Qwen)"]) == pytest.approx(total("style_aligned oracle=qwen2.5-math-72b", 256))
    assert float(ours["Style-Aligned (GPT-5.2)"]) == pytest.approx(total("style_aligned oracle=gpt-5.2", 256))
    assert ours["Oracle-Refined"] == ours["Oracle-Synthesized"] == ""
    (row,) = csv.DictReader(tables["published_grid"].csv().splitlines())
    assert (row["stream"], row["total_published"]) == ("slm_rft", "39.36")
    assert float(row["total_ours"]) == pytest.approx(total("slm_rft", 128))


def test_latex_and_markdown_are_escaped() -> None:
    assert tex("a_b & 5 % −1") == r"a\_b \& 5 \% $-$1"
