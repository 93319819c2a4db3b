"""Figures: which a study has, and their axes."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from qup.analysis.figures.labels import Box, spread_labels
from qup.analysis.figures.picture import log_axis
from qup.analysis.figures.style import Palette, drawing, svg_of
from qup.analysis.findings.survey import survey
from qup.analysis.report import pictures
from qup.analysis.results.shelf import Shelf
from qup.config.schema import Selection
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


def test_streams_that_keep_more_traces_have_pictures_of_their_own(tmp_path) -> None:
    """Else one line along λ would join streams of one and of four traces a problem."""
    chosen = [Selection(name=name, reward="lab_outcome", keep=keep, seed=0) for name in ("reward", "joint") for keep in (1, 4)]
    random = [Selection(keep=keep, seed=0) for keep in (1, 4)]
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft",), selections=[*random, *chosen])))
    made = {picture.name: picture for picture in pictures(survey(Study.load(folder), Shelf(store)))}
    for figure in ("lambda_lab_foreign_sft_slm_rft", "frontier_lab_foreign_sft_slm_rft_lab_steps"):
        assert {name for name in made if name.startswith(figure)} == {f"{figure}_keep_1", f"{figure}_keep_4"}
    (axes,) = made["lambda_lab_foreign_sft_slm_rft_keep_4"].figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["reward", "λ=1"]


def test_a_legend_of_many_arms_leaves_the_axes_their_room(tmp_path) -> None:
    """Matplotlib warns where a layout leaves the axes no room, and draws them unreadably."""
    selections = [Selection(name=name, keep=keep, seed=0) for name in ("random", "shortest", "perplexity") for keep in range(1, 7)]
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("oracle_synthesized",), selections=selections)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sizes = {picture.name: svg_of(picture.figure) for picture in pictures(survey(Study.load(folder), Shelf(store)))}
    assert {"segments_lab_foreign", "curves_lab_foreign_sft", "reward_lab_foreign"} <= set(sizes)


@pytest.mark.parametrize(("low", "high"), [(1.1, 1.9), (1.0, 40.0), (0.3, 1e5), (1.0, 1e9)])
def test_a_log_axis_has_labels_and_they_do_not_collide(low, high) -> None:
    figure = Figure()
    axes = figure.add_subplot()
    log_axis(axes, "x")
    axes.set_xlim(low, high)
    assert 2 <= sum(low <= tick <= high for tick in axes.get_xticks()) <= 10


def test_arms_differ_in_shape_as_well_as_in_colour() -> None:
    arms = ("base", "slm_rft", "oracle_refined", "oracle_synthesized", "style_aligned", "numina_subset", "mine", "yours")
    palette = Palette(arms)
    assert len({palette.marker(arm) for arm in arms}) == len({palette.glyph(arm) for arm in arms}) == len(arms)
    assert palette.dashes("slm_rft") != palette.dashes("oracle_refined")


def gap(box: Box, point: tuple[float, float]) -> float:
    return math.hypot(max(box[0] - point[0], 0, point[0] - box[2]), max(box[1] - point[1], 0, point[1] - box[3]))


@pytest.mark.parametrize("seed", range(6))
def test_a_label_covers_no_other_point_and_is_led_to_its_own_where_another_is_about_as_near(seed) -> None:
    """Eleven points, six of them in a heap."""
    random = np.random.default_rng(seed)
    with drawing() as make:
        figure = make(figsize=(5.2, 3.5))
        axes = figure.add_subplot()
        places = np.concatenate([random.normal(0.5, 0.05, (6, 2)), random.uniform(0, 1, (5, 2))])
        axes.plot(places[:, 0], places[:, 1], "o")
        axes.margins(0.2)
        axes.autoscale_view()
        spread_labels(axes, [(x, y, f"λ={index}", "black") for index, (x, y) in enumerate(places)])
        renderer = FigureCanvasAgg(figure).get_renderer()
    points = [tuple(one) for one in axes.transData.transform(places)]
    boxes = []
    for mine, text in enumerate(axes.texts):
        text.update_positions(renderer)
        box = Text.get_window_extent(text, renderer).extents
        boxes.append(box)
        assert min(gap(box, point) for point in points) > 0, "a label covers a point"
        others = min(gap(box, point) for index, point in enumerate(points) if index != mine)
        assert others > 1.5 * gap(box, points[mine]) or text.arrow_patch is not None, "whose label is this?"
    for index, box in enumerate(boxes):
        for other in boxes[index + 1 :]:
            wide, high = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
            assert min(wide, high) <= 1, "two labels cover each other"


def test_figures_that_a_phone_shows_are_narrow_and_name_their_units(lab) -> None:
    made = pictures(survey(Study.load(lab[0]), Shelf(lab[1])))
    assert all(one.figure.get_size_inches()[0] <= 7.5 for one in made)
    assert all(one.figure.get_size_inches()[0] <= 4.7 for one in made if one.section in ("first", "differences", "benchmarks"))
    labels = {one.section: [axes.get_xlabel() + axes.get_ylabel() for axes in one.figure.axes] for one in made}
    for section, said in (("first", "%"), ("differences", "points"), ("training", "nats"), ("tokens", "%"), ("benchmarks", "%")):
        assert all(said in label for label in labels[section]), section
