"""The plain answer: what to train on, and what could have been seen."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from qup.analysis.findings.answer import Answer, answers, told
from qup.analysis.findings.survey import Survey, survey
from qup.analysis.page.cards import cards
from qup.analysis.results.shelf import Shelf
from qup.config.schema import Selection, Source
from qup.study import Study
from tests.analysis.world import ONE, World, build_study, lab_cells

SIZES = {"a": 300, "b": 300}


def surveyed(tmp_path: Path, **world) -> Survey:
    arms = world.pop("arms", ("slm_rft", "oracle_refined", "style_aligned"))
    cells = world.pop("cells", None) or lab_cells(**ONE, arms=arms, benchmarks=SIZES)
    folder, store = build_study(tmp_path, World(cells, **world))
    return survey(Study.load(folder), Shelf(store))


def answered(tmp_path: Path, **world) -> Answer:
    (found,) = answers(surveyed(tmp_path, **world))
    return found


def test_a_better_arm_is_what_to_train_on_and_its_numbers_say_what_they_are(tmp_path) -> None:
    found = answered(tmp_path, skills={"slm_rft": 0.0, "oracle_refined": -1.0, "style_aligned": 1.0})
    assert found.take == "style_aligned"
    assert re.fullmatch(
        r"Train on style_aligned: \+\d+\.\d points over your own traces \(slm_rft\) \[\+\d+\.\d, \+\d+\.\d\] "
        r"\(95 % interval of this comparison alone\), p < 0\.001 after Holm over 6 comparisons\.",
        found.sentence,
    )
    assert "Worse than slm_rft: oracle_refined." in found.more


def test_where_nothing_beats_the_baseline_it_says_what_could_have_been_seen(tmp_path) -> None:
    made = surveyed(tmp_path, skills={"slm_rft": 1.0, "oracle_refined": -1.0, "style_aligned": 1.0})
    (found,) = answers(made)
    assert found.take == ""
    (limit,) = re.findall(r"could have seen a gain of (\S+) points", found.sentence)
    assert found.sentence.startswith("Nothing beats your own traces (slm_rft) here")
    detectable = [one.detectable for one in made.contrasts if one.question == "baseline"]
    assert float(limit) == pytest.approx(max(detectable), abs=0.051)

    first = next(one for one in made.contrasts if one.question == "baseline")
    flat = [replace(one, detectable=math.inf) if one is first else one for one in made.contrasts]
    (found,) = answers(replace(made, contrasts=flat))
    assert f"in {len(detectable) - 1} of {len(detectable)} comparisons, the others do not tell." in found.sentence


def test_the_setting_is_named_where_there_are_several(tmp_path) -> None:
    cells = lab_cells(students=(("lab_foreign", 0.0),), arms=("slm_rft", "style_aligned"), benchmarks=SIZES)
    found = answered(tmp_path, cells=cells, skills={"slm_rft": -1.0, "style_aligned": 1.0})
    assert re.fullmatch(r"style_aligned with (SFT|DFT)", found.take)


def test_training_that_harms_the_student_is_told(tmp_path) -> None:
    found = answered(tmp_path, skills={"base": 3.0, "slm_rft": -1.0, "oracle_refined": -1.0, "style_aligned": -1.0})
    assert "Every arm leaves the student below where it started untuned." in found.more


@pytest.mark.parametrize(
    ("world", "said"),
    [
        ({"arms": ("slm_rft",)}, "slm_rft is the only arm"),
        ({"arms": ("oracle_refined",)}, "the baseline slm_rft is not among the arms (oracle_refined)"),
        ({"skip": lambda node: node.kind == "evaluate"}, "nothing is trained and evaluated"),
    ],
)
def test_no_answer_says_why(world, said, tmp_path) -> None:
    found = answered(tmp_path, **world)
    assert found.sentence.startswith("Not answered")
    assert said in found.sentence


def test_a_study_of_selections_answers_which_to_take(tmp_path) -> None:
    selections = [Selection(seed=0), Selection(name="reward", reward="lab_outcome", seed=0)]
    cells = lab_cells(**ONE, arms=("slm_rft",), selections=selections, dev={"a": 50}, benchmarks=SIZES)
    (found,) = answers(surveyed(tmp_path, cells=cells))
    assert re.search(r"Selection: (take|the data do not say)", found.sentence)


def test_a_selection_above_the_arm_to_train_on_is_named(tmp_path) -> None:
    """It has no comparison with the baseline, for that is not its pool's random stream."""
    cells = lab_cells(**ONE, arms=("slm_rft", "style_aligned", "oracle_refined"), benchmarks=SIZES)
    joint = Selection(name="joint", reward="lab_outcome", seed=0)
    cells += [replace(one, selection=joint) for one in cells if one.stream.name == "oracle_refined"]
    found = answered(tmp_path / "a", cells=cells, skills={"slm_rft": 0.0, "style_aligned": 1.5, "oracle_refined": 1.35})
    assert found.take == "style_aligned"
    assert re.search(r"Higher still came oracle_refined · joint λ=1, \d+\.\d \[.*\] %, a selection found on the problems", found.sentence)
    found = answered(tmp_path / "b", cells=cells, skills={"slm_rft": 0.0, "style_aligned": 1.5, "oracle_refined": 0.5})
    assert found.take == "style_aligned" and "Higher still" not in found.sentence


def test_the_answer_comes_before_the_paradox(tmp_path) -> None:
    lines = told(surveyed(tmp_path, skills={"slm_rft": 0.0, "oracle_refined": -1.0, "style_aligned": 1.0}))
    assert len(lines) == 2
    assert "Train on" in lines[0]
    assert "paradox" in lines[1]


def test_every_arm_stands_in_the_verdicts_table(tmp_path) -> None:
    """Those of a file and of the data set, and selections, which are compared with their pool's random one."""
    cells = lab_cells(**ONE, benchmarks={"a": 60})
    cells = [replace(one, source=Source(name="file", path="t.jsonl")) if one.stream.name == "numina_subset" else one for one in cells]
    cells += [replace(cells[1], selection=Selection(name="shortest", seed=0))]
    made = surveyed(tmp_path, cells=cells)
    (card,) = cards(made, [])
    rows = {(one.arm, one.baseline): one.outcome for one in card.standings}
    assert set(rows) == {
        ("oracle_refined", "slm_rft"), ("oracle_synthesized", "slm_rft"), ("style_aligned", "slm_rft"), ("numina_subset", "slm_rft"),
        ("slm_rft · shortest", "slm_rft"),
    }  # fmt: skip
    assert {arm for (arm, _), outcome in rows.items() if outcome} == {"oracle_refined", "oracle_synthesized"}
    assert all(one.teaches in ("worse", "better", "equally", "undecided") for one in card.standings)
    assert {word for word, _ in card.explained} >= {outcome for outcome in rows.values() if outcome}


def test_a_selection_with_no_other_from_its_pool_is_compared_with_the_baseline(tmp_path) -> None:
    cells = lab_cells(**ONE, arms=("slm_rft", "oracle_refined"), benchmarks={"a": 60})
    cells[-1] = replace(cells[-1], selection=Selection(name="shortest", seed=0))
    found = [(one.arm, one.other) for one in surveyed(tmp_path, cells=cells).contrasts if one.question == "baseline"]
    assert found == [("oracle_refined · shortest", "slm_rft")]
