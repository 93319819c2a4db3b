"""Selection rules against plain loops, on ragged groups."""

from __future__ import annotations

import numpy as np
import pytest

from qup.draws import choose
from qup.selection import Groups, joint_value, pareto_rows, pooled_sd, random_rows, select, within_correlation

NAN = float("nan")


@pytest.fixture
def ragged():
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 9, 200)
    problem_N = np.repeat(np.arange(200) * 3, counts)
    return Groups.of(problem_N), [f"p{index}" for index in range(200)], rng


def members(groups):
    return [np.arange(start, start + count) for start, count in zip(groups.start_P, groups.count_P, strict=True)]


def test_random_draws_what_solvable_keeps(ragged):
    groups, ids, _ = ragged
    expected = [rows[choose(5, (name,), len(rows))] for rows, name in zip(members(groups), ids, strict=True)]
    assert random_rows(groups, ids, 5).tolist() == expected


def test_a_choice_does_not_depend_on_the_other_problems():
    ids = [f"p{index}" for index in range(50)]
    every = random_rows(Groups.of(np.repeat(np.arange(50), 6)), ids, 1) % 6
    half = random_rows(Groups.of(np.repeat(np.arange(25), 6)), ids[::2], 1) % 6
    assert half.tolist() == every[::2].tolist()


@pytest.mark.parametrize(("rule", "name", "sign"), [("reward", "reward_N", -1), ("perplexity", "cost_N", 1), ("measure", "cost_N", 1)])
def test_extremes_are_found(ragged, rule, name, sign):
    groups, ids, rng = ragged
    value = rng.normal(size=len(groups.problem_N))
    expected = [rows[np.argmin(sign * value[rows])] for rows in members(groups)]
    assert select(rule, groups, ids, 0, **{name: value}).tolist() == expected


def test_shortest_takes_the_first_of_equals():
    groups = Groups.of(np.array([0, 0, 0, 1, 1]))
    assert select("shortest", groups, ["a", "b"], 0, chars_N=np.array([5, 3, 3, 2, 2])).tolist() == [1, 3]


def test_ties_are_drawn_evenly_and_by_seed():
    ids = [f"p{index}" for index in range(3000)]
    groups = Groups.of(np.repeat(np.arange(3000), 3))
    reward = np.tile([1.0, 0.0, 1.0], 3000)
    first, again, other = (select("reward", groups, ids, seed, reward_N=reward) % 3 for seed in (0, 0, 1))
    assert set(first.tolist()) == {0, 2}
    assert 0.45 < (first == 0).mean() < 0.55
    assert (first == again).all()
    assert (first != other).any()


def test_joint_is_the_stated_formula(ragged):
    groups, ids, rng = ragged
    reward, nll, weight = rng.normal(size=len(groups.problem_N)), rng.normal(size=len(groups.problem_N)), 0.7
    squares = {name: sum(((x[rows] - x[rows].mean()) ** 2).sum() for rows in members(groups)) for name, x in (("r", reward), ("n", nll))}
    freedom = sum(len(rows) - 1 for rows in members(groups))
    s_r, s_n = np.sqrt(squares["r"] / freedom), np.sqrt(squares["n"] / freedom)
    expected = []
    for rows in members(groups):
        score = (reward[rows] - reward[rows].mean()) / s_r - weight * (nll[rows] - nll[rows].mean()) / s_n
        expected.append(rows[np.argmax(score)])
    assert select("joint", groups, ids, 0, reward_N=reward, cost_N=nll, weight=weight).tolist() == expected


def test_joint_ends_are_reward_and_perplexity(ragged):
    groups, ids, rng = ragged
    reward, nll = rng.normal(size=len(groups.problem_N)), rng.normal(size=len(groups.problem_N))
    scores = {"reward_N": reward, "cost_N": nll}
    assert (select("joint", groups, ids, 0, **scores, weight=0.0) == select("reward", groups, ids, 0, **scores)).all()
    assert (select("joint", groups, ids, 0, **scores, weight=1e9) == select("perplexity", groups, ids, 0, **scores)).all()


def test_joint_drops_a_term_that_does_not_vary():
    groups = Groups.of(np.array([0, 0, 1, 1]))
    constant, nll = np.array([0.1 + 0.2, 0.3, 7.0, 7.0]), np.array([2.0, 1.0, 1.0, 2.0])
    assert pooled_sd(groups, constant) == 0.0
    value = joint_value(groups, constant, nll, 1.0)
    assert np.isfinite(value).all()
    assert select("joint", groups, ["a", "b"], 0, reward_N=constant, cost_N=nll).tolist() == [1, 2]


def test_pooled_deviation_divides_by_what_the_means_left_free():
    groups = Groups.of(np.array([0, 0, 0, 1, 1, 2]))
    assert pooled_sd(groups, np.array([1.0, 2.0, 3.0, 5.0, 9.0, 100.0])) == pytest.approx(np.sqrt((1 + 0 + 1 + 4 + 4) / 3))


def test_pooled_deviation_tells_a_wide_gap_from_a_narrow_one():
    """A z-score within a pool of two would be ±1 in both problems."""
    groups = Groups.of(np.array([0, 0, 1, 1]))
    value = joint_value(groups, np.array([0.0, 0.1, 0.0, 10.0]), np.zeros(4), 1.0)
    assert value[3] > 50 * value[1] > 0


def test_pareto_front_is_what_no_other_beats_in_both(ragged):
    groups, ids, rng = ragged
    n = len(groups.problem_N)
    reward, nll = rng.integers(0, 4, n).astype(float), rng.integers(0, 4, n).astype(float)
    front = np.zeros(n, bool)
    for rows in members(groups):
        for i in rows:
            front[i] = not any(reward[j] > reward[i] and nll[j] < nll[i] for j in rows)
    assert (pareto_rows(groups, reward, nll) == front).all()
    chosen = select("pareto", groups, ids, 4, reward_N=reward, cost_N=nll)
    assert front[chosen].all()
    assert (chosen != select("pareto", groups, ids, 5, reward_N=reward, cost_N=nll)).any()


@pytest.mark.parametrize("rule", ["reward", "joint", "pareto"])
def test_an_unscored_trace_is_chosen_only_where_none_fits(rule):
    groups = Groups.of(np.array([0, 0, 1, 1]))
    reward, nll = np.array([NAN, -9.0, NAN, NAN]), np.array([0.1, 5.0, 1.0, 1.0])
    chosen = select(rule, groups, ["a", "b"], 0, reward_N=reward, cost_N=nll)
    assert chosen[0] == 1
    assert chosen[1] in (2, 3)


def test_within_correlation_leaves_problem_means_out():
    groups = Groups.of(np.repeat(np.arange(40), 4))
    rng = np.random.default_rng(0)
    within = rng.normal(size=160)
    level = np.repeat(rng.normal(size=40) * 100, 4)
    assert within_correlation(groups, within + level, -within + level) == pytest.approx(-1.0)
    assert within_correlation(groups, np.ones(160), within) is None


def test_every_rule_of_the_configuration_is_known():
    from qup.config.schema import SELECTIONS

    groups, given = Groups.of(np.array([0, 0])), np.array([0.0, 1.0])
    for rule in SELECTIONS:
        assert len(select(rule, groups, ["a"], 0, reward_N=given, cost_N=given, chars_N=given)) == 1


def test_no_problems_give_no_rows():
    assert select("random", Groups.of(np.zeros(0, int)), [], 0).tolist() == []
