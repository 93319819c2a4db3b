"""Fine-tuned weights after their evaluation: figures stay, weights go, and never those somebody still needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from qup.config.schema import Store as StoreConfig
from qup.launch.plan import Plan, make_plan
from qup.launch.registry import read_study, study_cells
from qup.launch.weights import prune_weights
from tests.analysis.world import World, build_study, lab_cells


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A finished study of one student's two arms, SFT and DFT, planned anew."""
    cells = lab_cells(arms=("slm_rft", "oracle_refined"), objectives=("sft", "dft"), students=(("lab_foreign", 0.0),))
    folder, store = build_study(tmp_path, World(cells, problems=4), "night")
    record = read_study(folder)
    assert record is not None
    made = make_plan([replace(cell, store=StoreConfig(dir=str(store.root))) for cell in study_cells(record)], folder)
    assert not made.to_run
    return made


def _trained(plan: Plan) -> dict[str, Path]:
    return {cell.label: plan.store.path("train", cell.stages["train"]) for cell in plan.graph.cells if "train" in cell.stages}


def _kept(plan: Plan) -> set[str]:
    return {label for label, path in _trained(plan).items() if (path / "model").is_dir()}


def test_all_weights_are_kept_by_default(plan: Plan) -> None:
    assert prune_weights(plan, "all") == []
    assert len(_kept(plan)) == 4


def test_the_best_weights_are_those_of_the_highest_total(plan: Plan) -> None:
    totals = {}
    for cell in plan.graph.cells:
        if "train" in cell.stages:
            artifact = plan.store.get("evaluate", cell.stages["evaluate"])
            assert artifact is not None
            totals[cell.label] = artifact.metrics["total"]
    assert len(set(totals.values())) > 1
    assert len(prune_weights(plan, "best")) == 3
    assert _kept(plan) == {max(totals, key=lambda label: totals[label])}


def test_none_are_kept_figures_stay_and_nothing_runs_again(plan: Plan) -> None:
    assert len(prune_weights(plan, "none")) == 4
    assert _kept(plan) == set()
    for path in _trained(plan).values():
        assert json.loads((path / "manifest.json").read_text())["metrics"]
    again = make_plan([cell.config for cell in plan.graph.cells], plan.study_dir)
    assert not again.to_run
    assert prune_weights(again, "none") == []


def test_weights_that_another_study_has_yet_to_evaluate_are_left(plan: Plan) -> None:
    cell = next(cell for cell in plan.graph.cells if "train" in cell.stages)
    other = plan.store.studies / "other"
    other.mkdir()
    evaluate = "evaluate/" + "0" * 20
    (other / "study.json").write_text(json.dumps({"nodes": {evaluate: [f"train/{cell.stages['train']}"]}}))
    assert len(prune_weights(plan, "none")) == 3
    assert _kept(plan) == {cell.label}
    shutil.rmtree(other)
    assert len(prune_weights(plan, "none")) == 1
