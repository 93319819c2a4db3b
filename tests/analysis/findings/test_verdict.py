"""The written rule, case by case, and its words."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from qup.analysis.findings.contrasts import adjusted
from qup.analysis.findings.survey import Survey, survey
from qup.analysis.findings.verdict import (
    EQUAL,
    NO_PREMISE,
    NOT_RESTORED,
    OPEN,
    RESTORED,
    REVERSED,
    SHOWN,
    UNKNOWN,
    decide,
    decide_causal,
    over_students,
)
from qup.analysis.findings.wording import causal, finding, headline, scope
from qup.analysis.results.shelf import Shelf
from qup.analysis.statistics.estimates import Components, Estimate, of_components
from qup.analysis.statistics.means import unknown
from qup.study import Study
from tests.analysis.world import World, build_study, lab_cells, reseal


def around(value: float, se: float) -> Estimate:
    return of_components(value, Components(se**2, 1000.0, 0.0, 0.0, 1, 1), 100, 1)


@pytest.mark.parametrize(
    ("reward", "utility", "p", "outcome"),
    [
        (around(0.3, 0.1), around(-4, 1), 0.001, SHOWN),
        (around(0.3, 0.1), around(4, 1), 0.001, REVERSED),
        (around(0.3, 0.1), around(-4, 2), 0.12, OPEN),
        (around(0.3, 0.1), around(0.2, 0.3), 0.9, EQUAL),
        (around(0.3, 0.1), around(0.2, 0.6), 0.9, OPEN),
        (around(0.1, 0.1), around(-4, 1), 0.001, NO_PREMISE),
        (around(-0.3, 0.1), around(-4, 1), 0.001, NO_PREMISE),
        (around(0.3, 0.1), None, math.nan, UNKNOWN),
        (unknown("nothing"), around(-4, 1), 0.001, UNKNOWN),
        (None, around(-4, 1), 0.001, UNKNOWN),
    ],
)
def test_the_rule(reward, utility, p, outcome) -> None:
    assert decide(reward, utility, p, margin=1.0) == outcome


@pytest.mark.parametrize(
    ("utility", "p", "log_ppl", "outcome"),
    [
        (around(4, 1), 0.001, around(-0.2, 0.01), RESTORED),
        (around(4, 1), 0.001, around(0.2, 0.01), NOT_RESTORED),
        (around(4, 1), 0.001, around(-0.01, 0.01), OPEN),
        (around(-4, 1), 0.001, around(-0.2, 0.01), NOT_RESTORED),
        (around(0.1, 0.2), 0.9, around(-0.2, 0.01), NOT_RESTORED),
        (around(2, 2), 0.4, around(-0.2, 0.01), OPEN),
        (None, math.nan, around(-0.2, 0.01), UNKNOWN),
    ],
)
def test_the_causal_rule(utility, p, log_ppl, outcome) -> None:
    assert decide_causal(utility, p, log_ppl, margin=1.0) == outcome


def surveyed(tmp_path, world: World) -> Survey:
    folder, store = build_study(tmp_path, world)
    return survey(Study.load(folder), Shelf(store))


def test_a_planted_paradox_is_shown_and_named(tmp_path) -> None:
    cells = lab_cells(objectives=("sft",), students=(("lab_foreign", 0.0),), benchmarks={"a": 300, "b": 300})
    found = surveyed(
        tmp_path, World(cells, skills={"slm_rft": 1.0, "oracle_refined": -1.0, "oracle_synthesized": -1.0, "style_aligned": 1.0})
    )
    (one,) = found.verdicts
    assert one.outcome == SHOWN
    assert headline(one) == "The paradox is shown: oracle_refined and oracle_synthesized score higher than slm_rft and teach worse."
    assert "these checkpoints, not of the recipe" in scope(one)
    assert [finding.outcome for finding in one.findings] == [SHOWN, SHOWN]
    assert one.causal[0].outcome == RESTORED
    assert "restored" in causal(one.causal[0])
    assert any(contrast.hurts for contrast in found.contrasts if contrast.question == "baseline")


def test_arms_that_differ_are_mixed_and_both_named(tmp_path) -> None:
    cells = lab_cells(objectives=("sft",), students=(("lab_foreign", 0.0),), benchmarks={"a": 400, "b": 400})
    found = surveyed(tmp_path, World(cells, skills={"slm_rft": 0.0, "oracle_refined": 1.5, "oracle_synthesized": -1.5}))
    assert headline(found.verdicts[0]) == "The paradox against slm_rft: shown for oracle_synthesized; reversed for oracle_refined."


def test_a_premise_that_fails_is_told_by_how_it_fails(tmp_path) -> None:
    cells = lab_cells(arms=("slm_rft", "oracle_refined"), objectives=("sft",), students=(("lab_foreign", 0.0),), benchmarks={"a": 60})
    found = surveyed(tmp_path, World(cells))
    (one,) = found.verdicts[0].findings
    for reward, told in ((around(-0.3, 0.1), "scores lower than slm_rft"), (around(0.1, 0.1), "is not shown to score higher than slm_rft")):
        failed = dataclasses.replace(one, outcome=NO_PREMISE, reward=dataclasses.replace(one.reward, estimate=reward))
        assert told in headline(dataclasses.replace(found.verdicts[0], outcome=NO_PREMISE, findings=(failed,)))
        assert ("reward is lower" in finding(failed)) == (reward.high < 0)


def test_three_seeds_speak_of_the_recipe(tmp_path) -> None:
    cells = lab_cells(
        arms=("slm_rft", "oracle_refined"), objectives=("sft",), students=(("lab_foreign", 0.0),), seeds=(0, 1, 2), benchmarks={"a": 200}
    )
    (one,) = surveyed(tmp_path, World(cells)).verdicts
    assert one.recipe
    assert scope(one) == "3 seeds: it speaks of the recipe."
    assert one.findings[0].contrast.total is not None
    assert one.findings[0].contrast.total.seeds == 3


def test_what_is_detectable_rests_on_the_variances_that_the_p_values_rest_on(tmp_path) -> None:
    """From three seeds on these are moderated; an arm's own seed variance of two degrees of freedom is not used twice."""
    cells = lab_cells(objectives=("sft",), seeds=(0, 1, 2), benchmarks={"a": 200, "b": 200})
    found = [one for one in surveyed(tmp_path, World(cells)).contrasts if one.question == "baseline"]
    assert len(found) == 8
    assert {one.design.pooling for one in found} == {2}
    for one in found:
        assert one.design.se == pytest.approx(one.total.se, rel=0.12)


def test_undecided_says_what_would_decide(tmp_path) -> None:
    cells = lab_cells(arms=("slm_rft", "oracle_refined"), objectives=("sft",), students=(("lab_foreign", 0.0),), benchmarks={"a": 60})
    (one,) = surveyed(tmp_path, World(cells, skills={"slm_rft": 0.0, "oracle_refined": -0.15})).verdicts
    assert one.outcome == OPEN
    assert "test problems" in finding(one.findings[0])


def test_other_benchmarks_problems_are_never_paired(tmp_path) -> None:
    cells = lab_cells(arms=("slm_rft", "oracle_refined"), objectives=("sft",), students=(("lab_foreign", 0.0),), benchmarks={"a": 60})
    world = World(cells)
    folder, store = build_study(tmp_path, world)
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    study = Study.load(folder)
    cell = next(cell for cell in study.cells if cell.get("stream.name") == "oracle_refined")
    path = store.path("evaluate", cell.stages["evaluate"])
    table = pq.read_table(path / "verdicts.parquet")
    renamed = pc.replace_substring(table["problem_id"], "a-0", "z-0")
    pq.write_table(table.set_column(table.column_names.index("problem_id"), "problem_id", renamed), path / "verdicts.parquet")
    reseal(path)
    found = survey(study, Shelf(store))
    assert any("a has different problems" in fault for fault in found.faults)
    assert found.verdicts[0].outcome == UNKNOWN


def test_over_students_counts(tmp_path) -> None:
    found = surveyed(tmp_path, World(lab_cells(objectives=("sft",), benchmarks={"a": 300})))
    one = found.verdicts[0]
    verdicts = [dataclasses.replace(one, student=str(i), outcome=outcome) for i, outcome in enumerate([SHOWN, SHOWN, OPEN])]
    assert over_students(verdicts) == "shown in 2 of 3 students, undecided in 1"
    assert over_students(verdicts[:1]) == ""


def test_the_family_is_all_planned_contrasts(tmp_path) -> None:
    found = surveyed(tmp_path, World(lab_cells(objectives=("sft",), students=(("lab_foreign", 0.0),))))
    questions = [one.question for one in found.contrasts]
    assert (questions.count("baseline"), questions.count("base"), questions.count("causal")) == (4, 5, 1)
    smallest = min(one.total.p for one in found.contrasts if one.total is not None)
    assert min(one.p_holm for one in found.contrasts) == pytest.approx(min(1.0, 10 * smallest))
    assert all(np.isfinite(one.detectable) for one in found.contrasts)
    assert adjusted([], 1.0) == []


def test_a_base_prompted_otherwise_is_another_arm(tmp_path) -> None:
    cells = lab_cells(arms=("slm_rft",), objectives=("sft",), students=(("lab_foreign", 0.0),))
    prompted = dataclasses.replace(cells[0], model=dataclasses.replace(cells[0].model, template="lab_symbolic"))
    found = surveyed(tmp_path, World([*cells, prompted]))
    assert [one.arm for one in found.summaries] == ["base", "slm_rft", "base template=lab_symbolic"]
    assert [(one.arm, one.other, one.fault) for one in found.contrasts] == [("slm_rft", "base", "")]
