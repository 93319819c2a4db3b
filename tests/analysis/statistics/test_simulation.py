"""The statistics on simulated studies whose truth is known: coverage, family-wise error, power. Training noise included."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from qup.analysis.statistics.critical import taken_out
from qup.analysis.statistics.estimates import Components, bootstrap, coefficients, components, estimate, holm
from qup.analysis.statistics.moderation import moderated
from qup.analysis.statistics.power import Design, design_of, detectable, power

PAPER = (500, 272, 30, 40, 675)
PAPER_MEANS = (0.7, 0.2, 0.08, 0.4, 0.3)


@dataclass(frozen=True)
class World:
    """Checkpoints solving problems: logit(p) = difficulty + arm + seed + seed × problem, k Bernoulli samples each."""

    sizes: tuple[int, ...]
    means: tuple[float, ...]
    samples: int
    seed_sd: float
    crossed_sd: float = 0.3
    arm_sd: float = 0.7

    def arms(self, rng: np.random.Generator, arms: int, seeds: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Observed accuracies, one [P, M, A] a benchmark in points, and each checkpoint's own true total [M, A]."""
        seed_MA = rng.normal(0, self.seed_sd, (seeds, arms))
        strata, truth = [], np.zeros((seeds, arms))
        for n, mean in zip(self.sizes, self.means, strict=True):
            p_PMA = self.chances(rng, n, mean, seed_MA)
            strata.append(100 * rng.binomial(self.samples, p_PMA) / self.samples)
            truth += 100 * self.expected(rng, mean, seed_MA) / len(self.sizes)
        return strata, truth

    def chances(self, rng: np.random.Generator, n: int, mean: float, seed_MA: np.ndarray) -> np.ndarray:
        seeds, arms = seed_MA.shape
        base = rng.normal(math.log(mean / (1 - mean)) * 1.6, 2.0, (n, 1, 1))
        logit = base + rng.normal(0, self.arm_sd, (n, 1, arms)) + seed_MA + rng.normal(0, self.crossed_sd, (n, seeds, arms))
        return 1 / (1 + np.exp(-logit))

    def expected(self, rng: np.random.Generator, mean: float, seed_MA: np.ndarray) -> np.ndarray:
        """True mean accuracy over the population of problems, for each checkpoint."""
        spread = math.sqrt(2.0**2 + self.arm_sd**2 + self.crossed_sd**2)
        nodes, weight = np.polynomial.hermite_e.hermegauss(40)
        logit = math.log(mean / (1 - mean)) * 1.6 + spread * nodes[:, None, None] + seed_MA
        return (weight[:, None, None] / weight.sum() / (1 + np.exp(-logit))).sum(axis=0)


def covers(world: World, seeds: int, runs: int, seed: int) -> float:
    """Share of 95 % intervals of a paired difference that hold the truth: of the recipe, or of the checkpoints."""
    rng = np.random.default_rng(seed)
    weights = coefficients(world.sizes)
    hits = 0
    for _ in range(runs):
        strata, truth_MA = world.arms(rng, 2, seeds)
        differences = [one[:, :, 0] - one[:, :, 1] for one in strata]
        value = sum(w * d.mean() for w, d in zip(weights, differences, strict=True))
        truth = 0.0 if seeds >= 3 else float((truth_MA[:, 0] - truth_MA[:, 1]).mean())
        hits += abs(value - truth) <= components(differences, weights).half_width(0.05)
    return hits / runs


@pytest.mark.parametrize(
    ("sizes", "means", "seeds", "seed_sd", "low"),
    [
        ((150,), (0.3,), 1, 0.15, 0.93),
        ((600,), (0.5,), 1, 0.15, 0.93),
        (PAPER, PAPER_MEANS, 1, 0.15, 0.93),
        ((150,), (0.3,), 3, 0.3, 0.93),
        ((600,), (0.5,), 3, 0.02, 0.93),
        ((600,), (0.5,), 3, 0.3, 0.93),
        ((600,), (0.5,), 5, 0.15, 0.93),
        (PAPER, PAPER_MEANS, 3, 0.05, 0.93),
        (PAPER, PAPER_MEANS, 3, 0.3, 0.93),
        ((30,), (0.1,), 1, 0.15, 0.90),
        ((40,), (0.4,), 3, 0.15, 0.90),
    ],
)
def test_intervals_of_paired_differences_cover(sizes, means, seeds, seed_sd, low) -> None:
    runs = 1200 if sum(sizes) <= 200 else 450
    share = covers(World(sizes, means, 4, seed_sd), seeds, runs, seed=sum(sizes) + seeds)
    error = 2 * math.sqrt(0.05 * 0.95 / runs)
    assert low - error <= share <= (0.97 if low > 0.9 else 0.985) + error, share


@pytest.mark.parametrize(
    ("sizes", "means", "low"),
    [((150,), (0.1,), 0.93), ((500,), (0.7,), 0.93), (PAPER, PAPER_MEANS, 0.93), ((30,), (0.2,), 0.90), ((40,), (0.5,), 0.90)],
)
def test_bootstrap_intervals_of_an_arm_cover(sizes, means, low) -> None:
    world, rng = World(sizes, means, 4, 0.15), np.random.default_rng(5)
    runs = 1000
    _strata, truth_MA = world.arms(rng, runs, 1)
    made = []
    weights = coefficients(sizes)
    for n, mean in zip(sizes, means, strict=True):
        made.append(
            np.concatenate([100 * rng.binomial(4, world.chances(rng, n, mean, truth_MA[:, [c]] * 0)) / 4 for c in range(runs)], axis=1)[
                :, :, 0
            ]
        )
    truth = sum(w * 100 * world.expected(rng, mean, np.zeros((1, 1)))[0, 0] for w, mean in zip(weights, means, strict=True))
    share = np.mean([one.low <= truth <= one.high for one in bootstrap(made, weights, bounds=(0, 100), resamples=1500)])
    error = 2 * math.sqrt(0.05 * 0.95 / runs)
    assert low - error <= share <= (0.97 if low > 0.9 else 0.985) + error, share


@pytest.mark.parametrize(("seeds", "seed_sds"), [(1, (0.0,) * 9), (3, (0.02,) * 9), (3, (0.3,) * 9), (3, (0.05,) * 8 + (0.3,))])
def test_family_wise_error_stays_at_six_percent(seeds, seed_sds) -> None:
    """Eight arms against a baseline, none of them different; seed variances moderated, in the last case wrongly alike."""
    rng, weights = np.random.default_rng(11), coefficients((150, 60))
    runs, wrong = 500, 0
    for _ in range(runs):
        seed_MA = rng.normal(0, 1, (seeds, 9)) * seed_sds
        world = World((150, 60), (0.5, 0.3), 4, 0.0)
        strata = [100 * rng.binomial(4, world.chances(rng, n, mean, seed_MA)) / 4 for n, mean in zip(world.sizes, world.means, strict=True)]
        parts = [components([one[:, :, arm] - one[:, :, 0] for one in strata], weights) for arm in range(1, 9)]
        values = [sum(w * (one[:, :, arm] - one[:, :, 0]).mean() for w, one in zip(weights, strata, strict=True)) for arm in range(1, 9)]
        made = moderated(parts) if seeds >= 3 else parts
        p = [one.p_value(float(value)) if abs(value) > one.half_width(0.05) else 1.0 for one, value in zip(made, values, strict=True)]
        wrong += min(holm(p)) < 0.05
    assert wrong / runs <= 0.06 + 2 * math.sqrt(0.06 * 0.94 / runs), wrong / runs


@pytest.mark.parametrize("alpha", [0.05, 0.00625, 0.001])
def test_the_error_stays_within_a_fifth_at_holm_levels_whatever_the_seed_variance(alpha) -> None:
    """Three seeds, interaction 0.3 of the problem part; one t quantile would err 15 times too often at 0.001."""
    rng, n, interaction = np.random.default_rng(0), 400_000, 0.3
    taken = taken_out(alpha, interaction, 2)
    for seed in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0):
        value = rng.normal(0, math.sqrt(1 + seed), n)
        raw = (seed + interaction) * rng.chisquare(2, n) / 2
        half = stats.norm.isf(alpha / 2) ** 2 + stats.t.isf(alpha / 2, 2) ** 2 * np.maximum(0, raw - taken * interaction)
        assert (value**2 > half).mean() <= 1.2 * alpha + 3 * math.sqrt(1.2 * alpha / n)


def test_one_arm_with_six_times_the_training_noise_does_not_break_the_family() -> None:
    rng, seeds, runs, wrong = np.random.default_rng(1), 3, 1500, 0
    sds = np.array([1.0] * 4 + [6.0])
    for _ in range(runs):
        seed_GMA = rng.normal(0, 1, (2, seeds, 5)) * sds
        apart_GMA = seed_GMA[:, :, 1:] - seed_GMA[:, :, :1] + rng.normal(0, 1.3, (2, seeds, 4))
        values = (apart_GMA.mean(axis=1) + rng.normal(0, 1.5, (2, 4))).ravel()
        raw = (apart_GMA.var(axis=1, ddof=1) / seeds).ravel()
        made = moderated([Components(1.5**2 + 1.3**2 / 3, 400.0, one, 1.3**2 / 3, seeds - 1, 800.0) for one in raw])
        wrong += any(abs(value) > one.half_width(0.05 / 8) for value, one in zip(values, made, strict=True))
    assert wrong / runs <= 0.06 + 2 * math.sqrt(0.06 * 0.94 / runs), wrong / runs


def test_p_values_are_dual_to_intervals() -> None:
    rng = np.random.default_rng(3)
    for seeds in (1, 3, 5):
        strata = [rng.normal(2, 20, (80, seeds)) + rng.normal(0, 1, (1, seeds)) for _ in range(2)]
        weights = coefficients([80, 80])
        found = estimate(strata, weights)
        assert components(strata, weights).half_width(found.p) == pytest.approx(abs(found.value), rel=1e-5)


@pytest.mark.parametrize("seeds", [1, 3, 6])
def test_power_is_within_three_points_of_the_formula(seeds) -> None:
    design = Design((200, 100), (0.5, 0.5), 4, seeds, (300.0, 500.0), (60.0, 60.0), (2000.0, 1600.0), 1.0 if seeds > 1 else 0.0)
    effect = detectable(design, wanted=0.7)
    rng, runs, found = np.random.default_rng(seeds), 3000, 0
    weights = coefficients(design.sizes)
    for _ in range(runs):
        seed_M = rng.normal(0, math.sqrt(design.seed), seeds)
        strata = [
            effect
            + rng.normal(0, math.sqrt(between), (n, 1))
            + seed_M
            + rng.normal(0, math.sqrt(crossed + noise / design.samples), (n, seeds))
            for n, between, crossed, noise in zip(design.sizes, design.problem, design.interaction, design.noise, strict=True)
        ]
        value = sum(w * d.mean() for w, d in zip(weights, strata, strict=True))
        found += abs(value) > components(strata, weights).half_width(0.05)
    assert abs(found / runs - power(effect, design)) <= 0.03


def test_variance_components_are_recovered() -> None:
    design = Design((2000, 1500), (0.5, 0.5), 4, 40, (300.0, 500.0), (60.0, 90.0), (2000.0, 1600.0), 4.0)
    rng = np.random.default_rng(0)
    seed_M = rng.normal(0, 2.0, 40)
    strata = [
        rng.normal(0, math.sqrt(b), (n, 1)) + seed_M + rng.normal(0, math.sqrt(c + e / 4), (n, 40))
        for n, b, c, e in zip(design.sizes, design.problem, design.interaction, design.noise, strict=True)
    ]
    found = design_of(strata, coefficients(design.sizes), design.noise, 4)
    np.testing.assert_allclose(found.problem, design.problem, rtol=0.1)
    np.testing.assert_allclose(found.interaction, design.interaction, rtol=0.1)
    assert found.seed == pytest.approx(4.0, rel=0.5)


@pytest.mark.parametrize("seed_variance", [0.3, 3.0])
def test_power_with_moderated_seed_variances_is_within_three_points_too(seed_variance) -> None:
    """Eight comparisons on three seeds that lend each other their seed variances, as in a study of five arms and two students."""
    rng, together, runs, effect = np.random.default_rng(0), 8, 400, 5.0
    problem, interaction, df = 1.5, 0.3, 400
    found, pooling = 0, []
    for _ in range(runs):
        values = effect + rng.normal(0, math.sqrt(problem + seed_variance), together)
        parts = [
            Components(problem * rng.chisquare(df) / df, df, (seed_variance + interaction) * rng.chisquare(2) / 2, interaction, 2, 800.0)
            for _ in range(together)
        ]
        made = moderated(parts)
        found += sum(abs(value) > one.half_width(0.05) for value, one in zip(values, made, strict=True))
        pooling.append(made[0].seed_df / 2)
    n = df + 1
    design = Design(
        (n,),
        (1.0,),
        1,
        3,
        ((problem - interaction) * n,),
        (3 * interaction * n,),
        (0.0,),
        3 * seed_variance,
        pooling=float(np.mean(pooling)),
    )
    assert design.parts() == pytest.approx((problem, df, seed_variance, interaction))
    assert abs(found / (together * runs) - power(effect, design)) <= 0.03
