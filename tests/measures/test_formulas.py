"""Each formula against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qup.config.schema import Measure
from qup.measures import KINDS, aslec_casl, car, grace, lalp, lark, rank_surprisal
from qup.measures.sets import columns, combine
from qup.measures.traces import Traces

TWO = Traces.of(
    np.array([0, 0]),
    {
        "tokens_N": [4, 5],
        "steps_N": [2, 1],
        "nll_N": [2.0, 10.0],
        "rank_N": [8, 30],
        "brier_N": [1.2, 3.0],
        "brier_top_N": [1.0, 2.5],
        "first_N": [2, 1],
        "first_nll_N": [1.5, 4.0],
        "question_tokens_N": [10, 10],
        "question_nll_N": [20.0, 20.0],
        "aa_N": [0.5, 0.25],
        "aq_N": [0.1, 0.2],
        "reward_N": [1.0, 3.0],
    },
)


def set_value(traces: Traces, settings: Measure, weight_BN: np.ndarray | None = None) -> Any:
    """The number of a set of traces."""
    return combine(columns(traces, settings), settings, weight_BN)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Measure("mean_logprob"), [-0.5, -2.0]),
        (Measure("rank_surprisal"), [4.0, 3.0]),
        (Measure("aslec_drop"), [-0.5 / 2, -6.0 / 4]),
        # L = .5, 2; Brier = .25, .5; rho = .5, .25; sum rho L / sum L = .75 / 2.5 = .3
        (Measure("lark"), [0.2 * (1.0 - 0.3), 0.8 * (0.5 - 0.3)]),
        # Brier = .3, .6; rho = .6, .3; .9 / 2.5 = .36
        (Measure("lark", brier="full"), [0.2 * (1.2 - 0.36), 0.8 * (0.6 - 0.36)]),
        # .5 · .25 · .5 + .5 · .5 · 2 · .1 and .5 · 4 · .25 + .5 · 2 · 2 · .2
        (Measure("scas"), [0.0625 + 0.05, 0.5 + 0.4]),
        (Measure("scas", weight=0.0), [0.125, 1.0]),
        (Measure("length"), [4, 5]),
        (Measure("length", unit="steps"), [2, 1]),
        (Measure("length", unit="tokens_a_step"), [2, 5]),
        (Measure("car", beta=2.0), [1.0 / 2, 3.0 / 5]),
    ],
    ids=lambda value: value.kind if isinstance(value, Measure) else "",
)
def test_a_trace_has_the_number_worked_out_by_hand(settings, expected):
    np.testing.assert_allclose(KINDS[settings.kind].module.values(TWO, settings), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Measure("mean_logprob"), -1.25),
        (Measure("rank_surprisal"), ((2 + 6) / 2) / ((0.5 + 2) / 2)),
        (Measure("car", beta=2.0), 2.0 / (1 + 2 * 1.25)),
        (Measure("length"), 4.5),
    ],
    ids=lambda value: value.kind if isinstance(value, Measure) else "",
)
def test_a_set_has_the_number_worked_out_by_hand(settings, expected):
    assert set_value(TWO, settings) == pytest.approx(expected, rel=1e-12)


def test_a_set_is_weighed_by_problem_in_a_resample():
    assert set_value(TWO, Measure("mean_logprob"), np.array([[3.0, 1.0], [0.0, 1.0]])) == pytest.approx([-3.5 / 4, -2.0])


def test_rank_surprisal_of_a_set_is_no_mean_of_ratios():
    assert set_value(TWO, Measure("rank_surprisal")) != pytest.approx(rank_surprisal.values(TWO, Measure()).mean())


def test_casl_takes_out_the_length_trend_that_was_put_in():
    """M = .7 M_non + .2 M_first + 1.5 F − .1 exactly: γ is found, and the score is free of F."""
    rng = np.random.default_rng(0)
    other, first, share = -rng.uniform(0.2, 2, 50), -rng.uniform(0.5, 4, 50), rng.integers(1, 9, 50) / 20
    mean = 0.7 * other + 0.2 * first + 1.5 * share - 0.1
    traces = Traces.of(
        np.arange(50),
        {
            "tokens_N": np.full(50, 20.0),
            "first_N": share * 20,
            "nll_N": -mean * 20,
            "first_nll_N": -first * share * 20,
        },
    )
    traced = -(traces.nll_N - traces.first_nll_N) / (traces.tokens_N - traces.first_N)
    table = np.stack([traced, first, share, np.ones(50)], 1)
    slopes = np.linalg.lstsq(table, mean, rcond=None)[0]
    found, _found_share, gamma = aslec_casl.fitted(traces)
    assert gamma == pytest.approx(slopes[2], rel=1e-9)
    np.testing.assert_allclose(found, mean, rtol=1e-12)
    np.testing.assert_allclose(aslec_casl.values(traces, Measure("aslec_casl")), mean - slopes[2] * share, rtol=1e-9)


def test_casl_of_traces_with_one_share_of_first_tokens_has_no_trend():
    same = Traces.of(np.arange(3), {"tokens_N": [4, 4, 4], "first_N": [1, 1, 1], "nll_N": [1, 2, 4.0], "first_nll_N": [0.5, 1, 1.5]})
    np.testing.assert_allclose(aslec_casl.values(same, Measure("aslec_casl")), [-0.25, -0.5, -1.0])


def test_a_trace_of_one_token_has_no_aslec_and_spoils_no_other():
    one = Traces.of(np.arange(3), {"tokens_N": [1, 4, 6], "first_N": [1, 1, 2], "nll_N": [1.0, 2, 4], "first_nll_N": [1.0, 1, 1.5]})
    for kind in ("aslec_drop", "aslec_casl"):
        found = KINDS[kind].module.values(one, Measure(kind))
        assert np.isnan(found).tolist() == [True, False, False]
    assert set_value(one, Measure("aslec_drop")) == pytest.approx(-(1 / 3 + 2.5 / 4) / 2)


def test_lark_of_a_problem_s_only_candidate_is_its_rho():
    alone = TWO.take(np.array([1]))
    assert lark.values(alone, Measure("lark")).tolist() == pytest.approx([0.25])


def test_lark_does_not_mix_problems():
    four = Traces.of(np.array([7, 3, 7, 3]), {"tokens_N": [4, 4, 5, 5], "nll_N": [2, 2, 10, 10.0], "brier_top_N": [1, 1, 2.5, 2.5]})
    np.testing.assert_allclose(lark.values(four, Measure("lark")), [0.14, 0.14, 0.16, 0.16], rtol=1e-12)


@pytest.mark.parametrize(
    ("g_hat", "keep", "expected"),
    [
        ([0.5, 0.1, 0.3], 2, [2 / 3, 0, 1 / 3]),  # threshold .1: .4 and .2
        ([0.5, 0.1, 0.3], 1, [1, 0, 0]),
        ([0.2, 0.2, 0.2], 2, [0.5, 0.5, 0]),
        ([float("nan"), 0.4, 0.1], 1, [0, 1, 0]),
        ([float("nan")] * 2, 1, [0.5, 0.5]),
        ([0.3], 4, [1]),
        ([0.3, 0.1], 2, [1, 0]),  # nothing left out: the threshold lies 1e-8 below the least
    ],
)
def test_larks_weights(g_hat, keep, expected):
    np.testing.assert_allclose(lark.weights(np.array(g_hat), keep), expected, atol=1e-7)


def test_cars_rewards_below_zero_are_lifted_and_named():
    lifted, least = car.shifted(np.array([-2.0, 1.0, np.nan]))
    assert (lifted[:2].tolist(), least) == ([0.0, 3.0], -2.0)
    assert car.shifted(np.array([0.5, 1.0]))[1] == 0.0


def test_lalp_counts_steps_alike_whatever_their_length():
    assert lalp.value([np.array([1.0, 3.0]), np.array([4.0]), np.array([])]) == pytest.approx(-3.0)


@pytest.mark.parametrize(
    ("window", "expected"), [(0.25, [0, 1, 1, 1, 1, 2]), (2, [0, 1, 2, 2, 2, 2]), (0.75, [0, 1, 2, 3, 3, 4]), (1, [0, 1, 1, 1, 1, 1])]
)
def test_lalp_sees_a_share_of_the_steps_before_or_a_number(window, expected):
    assert [lalp.seen(step, window) for step in range(6)] == expected


def plain_grace(gradients, problems, splits, seed):
    """As the formula reads, with the inverse of a d × d matrix."""
    ids, scores = np.unique(problems), []
    for split in range(splits):
        held = ids[np.random.default_rng([seed, split]).permutation(len(ids))[: max(1, len(ids) // 10)]]
        test = np.isin(problems, held)
        g = gradients[~test] / np.linalg.norm(gradients[~test], axis=1, keepdims=True)
        values, vectors = np.linalg.eigh(g.T @ g / len(g))
        values = 0.999 * values + 0.001 * values.mean()
        inverse = vectors @ np.diag(1 / values) @ vectors.T
        scores.append(np.trace(inverse @ (gradients[test].T @ gradients[test] / test.sum())))
    return np.mean(scores)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)], ids=["more traces than dimensions", "fewer"])
def test_grace_is_what_its_formula_says(n, d):
    rng = np.random.default_rng(1)
    gradients, problems = rng.normal(size=(n, d)), np.repeat(np.arange(n // 2), 2)
    assert grace.score(gradients, problems, 4, 3) == pytest.approx(plain_grace(gradients, problems, 4, 3), rel=1e-6)


def test_grace_by_hand():
    """Unit gradients all along one axis of two: K has eigenvalues 1 and 0, smoothed .9995 and .0005."""
    gradients = np.tile([2.0, 0.0], (10, 1))
    assert grace.score(gradients, np.arange(10), 3) == pytest.approx(4 / 0.9995)
    assert grace.score(np.tile([0.0, 3.0], (10, 1)), np.arange(10), 1) == pytest.approx(9 / 0.9995)


def test_grace_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(2)
    gradients, problems = rng.normal(size=(40, 6)), np.arange(40) // 2
    order = rng.permutation(40)
    assert grace.score(gradients[order], problems[order], 5) == pytest.approx(grace.score(gradients, problems, 5), rel=1e-10)


def test_grace_grows_with_the_square_of_a_common_scale():
    """Training gradients are normalised, test gradients are not."""
    rng = np.random.default_rng(3)
    gradients, problems = rng.normal(size=(40, 6)), np.arange(40)
    assert grace.score(3 * gradients, problems, 5) == pytest.approx(9 * grace.score(gradients, problems, 5), rel=1e-10)


def test_grace_does_not_depend_on_the_length_of_training_gradients():
    rng = np.random.default_rng(5)
    gradients = rng.normal(size=(40, 6))
    held = np.random.default_rng([0, 0]).permutation(40)[:4]
    longer = gradients * rng.uniform(0.1, 9, (40, 1))
    longer[held] = gradients[held]
    assert grace.score(longer, np.arange(40), 1) == pytest.approx(grace.score(gradients, np.arange(40), 1), rel=1e-10)
