"""Measures judged against utility, on invented studies whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qup.analysis.findings.judged import sentence
from qup.analysis.findings.survey import survey
from qup.analysis.measures import show_measures
from qup.analysis.results.shelf import Shelf
from qup.config.schema import Selection
from qup.errors import InputError
from qup.launch.console import make_console
from qup.study import Study
from tests.analysis.world import SURPRISE, World, build_study, lab_cells

ARMS = ("oracle_refined", "oracle_synthesized", "style_aligned", "numina_subset")
FAR_APART = {"style_aligned": 1.2, "oracle_refined": -0.1, "oracle_synthesized": -0.8, "numina_subset": -1.6}
"""In the order of their surprise: mean log-probability is right about every pair."""


def judged(root, *, skills=FAR_APART, selections=None, benchmarks=None, problems=400):
    cells = lab_cells(
        ARMS,
        students=(("lab_foreign", 0.0),),
        objectives=("sft",),
        benchmarks=benchmarks or {"easy": 300, "hard": 200},
        selections=selections or (Selection(seed=0),),
    )
    folder, store = build_study(root, World(cells, problems=problems, length=8, steps=2, skills=skills))
    study, shelf = Study.load(folder), Shelf(store)
    return study, shelf, survey(study, shelf)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return judged(tmp_path_factory.mktemp("known"))


def of(made, name):
    (one,) = made.judgements
    return next(measure for measure in one.measures if measure.measure == name)


def test_a_measure_that_orders_every_arm_rightly_costs_nothing(known):
    one = of(known[2], "mean_logprob")
    assert (one.tau.value, one.right, one.pick) == (1.0, 1.0, "style_aligned")
    assert (one.regret.value, one.seconds) == (0.0, 4 * 12.5)


def test_one_that_orders_them_all_wrongly_costs_the_whole_distance(known):
    (one,) = known[2].judgements
    ratio = of(known[2], "rank_surprisal")
    assert (ratio.tau.value, ratio.right, ratio.pick) == (-1.0, 0.0, "numina_subset")
    assert ratio.regret.value == pytest.approx(max(one.utility_A) - min(one.utility_A))
    assert ratio.regret.low < ratio.regret.value < ratio.regret.high


def test_rewards_are_judged_beside_the_measures(known):
    assert of(known[2], "reward (lab_outcome)").pick == "oracle_synthesized"


def test_fewer_problems_are_tried_by_doubling(known):
    assert [at.problems for at in of(known[2], "mean_logprob").at] == [50, 100, 200]
    assert of(known[2], "mean_logprob").at[1].tau > 0.9


def test_below_eight_arms_nothing_is_claimed(known):
    (one,) = known[2].judgements
    assert not one.claimed
    assert "below 8 arms nothing is claimed" in sentence(one)


def test_pairs_that_the_study_cant_tell_apart_are_left_out_and_counted(tmp_path):
    """Three arms of one skill and a far worse one: what orders the three counts in nothing."""
    skills = dict.fromkeys(ARMS, 1.0) | {"numina_subset": -2.0}
    _, _, made = judged(tmp_path, skills=skills, benchmarks={"easy": 60})
    (one,) = made.judgements
    assert one.decided + one.undecided == 6
    assert one.undecided >= 1
    assert of(made, "mean_logprob").right >= 3 / one.decided


def test_from_eight_arms_on_the_sentence_names_what_to_follow_and_length_beside_it(tmp_path):
    selections = (Selection(seed=0), Selection("reward", seed=0, reward="lab_outcome"))
    _, _, made = judged(tmp_path, selections=selections, problems=80)
    (one,) = made.judgements
    assert one.claimed
    assert "points against the best arm" in sentence(one)
    assert "picking the shortest costs" in sentence(one)


def test_a_study_of_two_arms_is_not_judged(tmp_path):
    cells = lab_cells(ARMS[:2], students=(("lab_foreign", 0.0),), objectives=("sft",))
    folder, store = build_study(tmp_path, World(cells, steps=2))
    study = Study.load(folder)
    assert survey(study, Shelf(store)).judgements == []
    with pytest.raises(InputError, match="nothing to judge; at least three arms"):
        show_measures(study, make_console())


def test_the_same_study_is_judged_the_same_twice(known):
    study, shelf, made = known
    for one, other in zip(survey(study, shelf).judgements[0].measures, made.judgements[0].measures, strict=True):
        np.testing.assert_equal(vars(one), vars(other))


def test_length_given_length_is_not_asked(known):
    assert math.isnan(of(known[2], "length").given_length)
    assert not math.isnan(of(known[2], "mean_logprob").given_length)


def test_the_order_of_surprise_is_what_this_world_says():
    assert sorted(ARMS, key=SURPRISE.__getitem__) == sorted(ARMS, key=FAR_APART.__getitem__, reverse=True)
