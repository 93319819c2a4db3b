"""Estimates, corrections and correlations against values known by other means."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from qup.analysis.statistics.correlation import FEWEST_ARMS, spearman
from qup.analysis.statistics.critical import taken_out
from qup.analysis.statistics.estimates import Components, bootstrap, coefficients, components, estimate, holm
from qup.analysis.statistics.means import combined, exponential, log_ratio_difference, mean_of, ratio_of
from qup.analysis.statistics.moderation import moderated
from qup.analysis.statistics.power import Design, detectable, needed, power


def test_one_benchmark_and_one_seed_is_the_t_test() -> None:
    values = np.random.default_rng(0).normal(3, 10, 40)
    found, known = estimate([values[:, None]], np.ones(1)), stats.ttest_1samp(values, 0)
    assert found.p == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval()))


def test_a_problems_samples_are_one_unit() -> None:
    """Means of k samples come in, so more samples of the same means change nothing, and fewer problems widen."""
    values = np.random.default_rng(0).normal(0, 10, (60, 1))
    assert estimate([values], np.ones(1)).half == pytest.approx(estimate([np.repeat(values, 2, axis=1)], np.ones(1)).half)
    assert estimate([values[:20]], np.ones(1)).half > estimate([values], np.ones(1)).half


def test_macro_and_pooled_totals_weigh_benchmarks_differently() -> None:
    strata = [np.full((10, 1), 10.0) + np.arange(10)[:, None], np.full((90, 1), 50.0) + np.arange(90)[:, None]]
    assert estimate(strata, coefficients([10, 90])).value == pytest.approx((14.5 + 94.5) / 2)
    assert estimate(strata, coefficients([10, 90], pooled=True)).value == pytest.approx(0.1 * 14.5 + 0.9 * 94.5)


def test_nothing_varying_gets_an_exact_bound_and_not_zero_width() -> None:
    found = estimate([np.zeros((30, 1))], np.ones(1), bound=100)
    assert found.p == 1.0
    assert found.high == pytest.approx(100 * (1 - 0.025 ** (1 / 30)))
    (arm,) = bootstrap([np.zeros((30, 1))], np.ones(1), bounds=(0, 100))
    assert (arm.low, arm.value) == (0, 0)
    assert 5 < arm.high < 15


def test_bootstrap_intervals_stay_inside_their_bounds_and_repeat() -> None:
    values = np.concatenate([np.zeros(38), [50.0, 100.0]])[:, None]
    (first,), (again,) = (bootstrap([values], np.ones(1), bounds=(0, 100)) for _ in range(2))
    assert first == again
    assert 0 <= first.low < first.value < first.high


@pytest.mark.parametrize("bad", [[], [np.zeros((0, 1))], [np.full((3, 1), np.nan)], [np.zeros((3, 1)), np.zeros((3, 2))]])
def test_impossible_input_is_refused(bad) -> None:
    with pytest.raises(ValueError, match=r".+"):
        estimate(bad, coefficients([max(len(one), 1) for one in bad] or [1]))


def test_seeds_are_never_a_bootstrap_of_three() -> None:
    """With seed noise alone, the interval is t with two degrees of freedom, four times the seeds' standard error."""
    seeds = np.array([-1.0, 0.0, 1.0])
    found = estimate([np.tile(seeds, (500, 1)) + 5], np.ones(1))
    assert found.half == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3), rel=1e-6)


def test_holm_is_the_textbook_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_nan_scores_are_left_out_of_means() -> None:
    assert mean_of(np.array([1.0, np.nan, 3.0, np.inf])).value == 2
    assert math.isnan(mean_of(np.array([np.nan])).value)
    assert mean_of(np.array([4.0])).value == 4


def test_perplexity_intervals_match_a_bootstrap_of_traces() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(20, 200, 400).astype(float)
    nll = tokens * rng.gamma(4, 0.1, 400)
    found = exponential(ratio_of(nll, tokens))
    counts = rng.multinomial(400, np.full(400, 1 / 400), 4000)
    low, high = np.quantile(np.exp((counts @ nll) / (counts @ tokens)), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.01)
    assert found.value == pytest.approx(math.exp(nll.sum() / tokens.sum()))


def test_paired_log_perplexities_profit_from_pairing() -> None:
    rng = np.random.default_rng(1)
    tokens, level = np.full(200, 50.0), rng.gamma(4, 0.1, 200)
    found = log_ratio_difference((tokens * level * 1.1, tokens), (tokens * level, tokens))
    assert found.low > 0
    assert found.p < 1e-6
    assert found.half < ratio_of(tokens * level, tokens).half


def test_replicates_are_a_level_from_three_on() -> None:
    parts = [mean_of(np.random.default_rng(i).normal(i, 0.1, 50)) for i in range(3)]
    assert combined(parts).half > 1
    assert combined(parts[:2]).half < 0.1


def test_spearmans_p_is_that_of_all_permutations() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=8), np.array([1, 1, 2, 3, 3, 4, 5, 5.0])
    rank_x, rank_y = stats.rankdata(x), stats.rankdata(y)
    seen = abs(np.corrcoef(rank_x, rank_y)[0, 1])
    orders = np.array(list(itertools.permutations(rank_y - rank_y.mean())))
    scale = np.linalg.norm(rank_x - rank_x.mean()) * np.linalg.norm(rank_y - rank_y.mean())
    expected = (np.abs(orders @ (rank_x - rank_x.mean())) / scale >= seen - 1e-9).mean()
    found = spearman(x, y)
    assert found.p == pytest.approx(expected)
    assert found.rho == pytest.approx(stats.spearmanr(x, y)[0])
    assert found.exact


def test_no_claim_is_made_below_eight_arms() -> None:
    few = spearman(range(FEWEST_ARMS - 1), range(FEWEST_ARMS - 1))
    assert few.rho == pytest.approx(1)
    assert not few.claimed
    assert math.isnan(few.p)
    assert math.isnan(spearman([1.0] * 9, range(9)).rho)
    assert spearman([1, 2, math.nan, 4], [1, 2, 3, 4]).n == 3


def test_many_arms_are_permuted_at_random_with_a_fixed_seed() -> None:
    x = np.random.default_rng(0).normal(size=20)
    first, again = (spearman(x, x + np.random.default_rng(1).normal(size=20)) for _ in range(2))
    assert first == again
    assert not first.exact


def test_less_is_taken_out_of_the_seed_variance_at_smaller_levels() -> None:
    taken = [taken_out(alpha, 0.3, 2) for alpha in (0.2, 0.05, 0.005, 0.0005)]
    assert taken == sorted(taken, reverse=True)
    assert taken[0] == 1
    assert taken[-1] < 0.1


def test_moderation_draws_seed_variances_together_and_credits_a_quarter() -> None:
    parts = [Components(1.0, 100.0, raw, 0.1, 2, 200.0) for raw in np.random.default_rng(0).chisquare(2, 12)]
    made = moderated(parts)
    assert np.var([one.raw_seed for one in made]) < np.var([one.raw_seed for one in parts])
    assert {2 < one.seed_df <= 12 * 2 / 4 for one in made} == {True}
    assert moderated(parts[:1]) == parts[:1]
    assert [one.problem for one in made] == [one.problem for one in parts]


def design(**changes) -> Design:
    settings = {
        "sizes": (300,),
        "weights": (1.0,),
        "samples": 4,
        "seeds": 3,
        "problem": (400.0,),
        "interaction": (50.0,),
        "noise": (3000.0,),
        "seed": 0.5,
    }
    return Design(**{**settings, **changes})


def test_power_rises_with_everything_that_costs() -> None:
    base = power(4.0, design())
    for change in ({"sizes": (900,)}, {"samples": 16}, {"seeds": 6}):
        assert power(4.0, design(**change)) > base
    assert power(0.0, design(seeds=1, seed=0.0)) == pytest.approx(0.05, abs=0.005)
    assert power(detectable(design()), design()) == pytest.approx(0.8, abs=0.001)


def test_needed_says_what_would_decide_and_what_would_not() -> None:
    found = needed(3.0, design(seeds=1, seed=0.0), margin=1.0)
    assert found.goal == "difference"
    assert found.problems is not None
    assert found.problems > 300
    assert power(3.0, design(seeds=1, seed=0.0, sizes=(found.problems,))) >= 0.8
    assert found.seeds is None
    small = needed(0.2, design(seeds=1, seed=0.0), margin=1.0)
    assert small.goal == "equality"
    noisy = needed(8.0, design(seed=30.0), margin=1.0)
    assert noisy.problems is None
    assert noisy.seeds is not None


def test_components_leave_seeds_out_below_three() -> None:
    values = np.random.default_rng(0).normal(0, 1, (50, 2)) + np.array([[0.0, 100.0]])
    assert components([values], np.ones(1)).raw_seed == 0
