"""Differences along a setting of the student."""

from __future__ import annotations

import csv
import html
import json
from dataclasses import replace

from qup.analysis.findings.survey import AxisPoint, survey
from qup.analysis.report import build, pictures
from qup.analysis.results.shelf import Shelf
from qup.config.compose import Composer
from qup.config.schema import Benchmark, Config, LabProblems, LabStudent, Model
from qup.config.sweeps import expand
from qup.study import Study
from tests.analysis.world import World, build_study, content
from tests.helpers.cells import cell


def exposure_cells(exposures: tuple[float, ...]) -> list[Config]:
    """The exposure experiment's own cells, of some exposures and two arms, on few problems."""
    composer = Composer.over()
    cells = composer.grid(expand(composer, ["experiment=exposure"]))
    kept = [
        one
        for one in cells
        if one.model.lab and one.model.lab.exposure in exposures and one.stream.name in ("base", "slm_rft", "oracle_refined")
    ]
    small = {"easy": Benchmark(lab=LabProblems(n=60)), "hard": Benchmark(lab=LabProblems(n=40))}
    return [replace(one, evaluation=replace(one.evaluation, benchmarks=small)) for one in kept]


def test_the_exposure_experiment_has_the_picture_of_when_the_paradox_holds(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(exposure_cells((0.0, 0.1, 0.5))), "exposure")
    made = survey(Study.load(folder), Shelf(store))
    assert [(one.family, one.axis, one.x, one.student) for one in made.axis] == [
        ("exposure", "exposure", x, f"exposure_{int(100 * x):02d}") for x in (0.0, 0.1, 0.5)
    ]
    for point in made.axis:
        assert point.base is not None
        assert [one.arm for one in point.prompted] == ["base template=lab_sequential", "base template=lab_symbolic"]
        assert {len(one.runs) for one in (point.base, *point.prompted)} == {3}
        assert (point.solvable, point.contrasts[0].total.seeds) == (45, 3)
        assert 0 < point.detectable < 100
    (picture,) = [one for one in pictures(made) if one.section == "axis"]
    assert picture.name == "axis_exposure_sft"
    for said in ("exposure 0.1: oracle_refined", "untuned, prompted: lab_symbolic", "45 solvable problems", "detectable"):
        assert said in picture.alt
    page = content(build(folder, store))
    assert page.index('id="fig-axis_exposure_sft"') < page.index('<article class="card first">')
    losses = {(row["where"], row["what"]): row for row in csv.DictReader((folder / "report" / "tables" / "losses.csv").open())}
    assert float(losses["solvable of exposure_00", "problems that the student never solved"]["of"]) == 3 * 52
    told_to_programs = json.loads((folder / "report" / "summary.json").read_text())["axis"]
    assert [(one["value"], one["n_solvable"], len(one["prompted"])) for one in told_to_programs] == [(x, 45, 2) for x in (0.0, 0.1, 0.5)]
    assert html.unescape(page).count("Each arm's first replicate.") == 3
    header = (folder / "report" / "tables" / "axis.csv").read_text().splitlines()[0].split(",")
    assert {"base", "base_template=lab_symbolic", "n_solvable", "oracle_refined_to_baseline", "detectable"} <= set(header)


def test_students_of_other_weights_or_of_two_settings_make_no_axis(tmp_path) -> None:
    def axes(models: list[Model]) -> list[AxisPoint]:
        cells = [replace(cell(arm, "sft"), model=model) for model in models for arm in ("slm_rft", "oracle_refined")]
        folder, store = build_study(tmp_path / str(len(list(tmp_path.iterdir()))), World(cells, problems=4, length=4, steps=2))
        return survey(Study.load(folder), Shelf(store)).axis

    assert len(axes([Model(name=f"m{x}", lab=LabStudent(exposure=x)) for x in (0.0, 0.1, 0.2)])) == 3
    assert not axes([Model(name=f"m{x}", lab=LabStudent(exposure=x)) for x in (0.0, 0.1)])
    assert not axes([Model(name=f"m{x}", lab=LabStudent(exposure=x, noise=x)) for x in (0.0, 0.1, 0.2)])
    assert not axes([Model(name=f"m{x}{y}", lab=LabStudent(exposure=x, noise=y)) for x in (0.0, 0.1, 0.2) for y in (0.0, 0.1, 0.2)])
    assert not axes([Model(name=f"m{x}", path=f"org/m{x}", revision="0" * 40, context=1024 * x) for x in (1, 2, 3)])
