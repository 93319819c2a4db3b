"""Orders of arms compared, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from qup.analysis.statistics.ranking import pairs, partial, picked, rightly, tau_b


def every(arms):
    return np.ones(len(pairs(arms)[0]), bool)


@pytest.mark.parametrize("seed", range(4))
def test_tau_b_over_all_pairs_is_scipys_with_and_without_ties(seed):
    rng = np.random.default_rng(seed)
    for values in (rng.normal(size=(2, 9)), rng.integers(0, 4, (2, 9)).astype(float)):
        expected = stats.kendalltau(values[0], values[1]).statistic
        assert tau_b(values[:1], values[1:], every(9))[0] == pytest.approx(expected)


def test_pairs_that_are_not_counted_change_nothing():
    """Arms 0 and 1 can't be told apart: their order is wrong, and does not matter."""
    utility, measure = np.array([1.0, 1.1, 3.0]), np.array([2.0, 1.0, 5.0])
    counted = np.array([False, True, True])
    assert tau_b(measure[None], utility[None], counted)[0] == 1
    assert rightly(measure, utility, counted) == 1
    assert tau_b(measure[None], utility[None], every(3))[0] == pytest.approx(1 / 3)
    assert rightly(measure, utility, every(3)) == pytest.approx(2 / 3)


def test_a_tie_of_the_measure_counts_as_half_right():
    assert rightly(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]), every(3)) == pytest.approx((0.5 + 1 + 1) / 3)


def test_without_a_decided_pair_there_is_no_number():
    none = np.zeros(3, bool)
    assert math.isnan(tau_b(np.arange(3.0)[None], np.arange(3.0)[None], none)[0])
    assert math.isnan(rightly(np.arange(3.0), np.arange(3.0), none))


def test_partial_tau_by_hand():
    assert partial(0.6, 0.0, 0.0) == pytest.approx(0.6)
    assert partial(0.5, 0.5, 0.6) == pytest.approx((0.5 - 0.3) / math.sqrt(0.75 * 0.64))
    assert math.isnan(partial(0.5, 1.0, 0.5))


def test_the_pick_is_the_highest_and_ties_are_averaged():
    value = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 1.0], [np.nan, 0.0, -1.0]])
    utility = np.array([[10.0, 20.0, 30.0]] * 3)
    assert picked(value, utility).tolist() == [20, 15, 20]
    assert np.isnan(picked(np.full((1, 3), np.nan), utility[:1]))[0]
