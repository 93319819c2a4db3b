"""Figures: which a study has, and their axes."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from qup.analysis.figures.picture import log_axis
from qup.analysis.findings.survey import survey
from qup.analysis.report import pictures
from qup.analysis.results.shelf import Shelf
from qup.study import Study
from tests.analysis.world import ONE, World, build_study, lab_cells


def test_a_grid_and_an_axis_have_their_pictures(tmp_path) -> None:
    def names(world: World, root: Path) -> set[str]:
        folder, store = build_study(root, world)
        return {picture.name for picture in pictures(survey(Study.load(folder), Shelf(store)))}

    trainers = [{"lr": lr, "batch_size": batch} for lr in (2e-5, 5e-5) for batch in (128, 256)]
    grid = names(World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined"), trainers=trainers)), tmp_path / "g")
    assert "heatmap_lab_foreign_sft" in grid
    students = [("lab", share) for share in (0.0, 0.1, 0.5)]
    axis = names(World(lab_cells(arms=("slm_rft", "oracle_refined"), objectives=("sft",), students=students)), tmp_path / "a")
    assert "axis_lab_sft" in axis
    assert "forest_lab_exposure_0_1" in axis


@pytest.mark.parametrize(("low", "high"), [(1.1, 1.9), (1.0, 40.0), (0.3, 1e5), (1.0, 1e9)])
def test_a_log_axis_has_labels_and_they_do_not_collide(low, high) -> None:
    figure = Figure()
    axes = figure.add_subplot()
    log_axis(axes, "x")
    axes.set_xlim(low, high)
    assert 2 <= sum(low <= tick <= high for tick in axes.get_xticks()) <= 10
