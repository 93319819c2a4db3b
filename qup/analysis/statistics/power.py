"""What a design can see: power, the detectable effect, and how many problems, samples or seeds would decide.

The model of one paired difference d of an arm and its baseline, for problem P of benchmark b, seed M and k samples:
d = effect + problem_b + seed + (seed × problem)_b + sampling_b. All in percent points.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from qup.analysis.statistics.critical import taken_out
from qup.analysis.statistics.estimates import SEEDS_FOR_RECIPE

POWER = 0.8
GRID = 48
MOST_PROBLEMS, MOST_SAMPLES, MOST_SEEDS = 1000.0, 1024, 64


@dataclass(frozen=True)
class Design:
    """Sizes and variances of a paired comparison; the variances are per benchmark, in squared points."""

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    samples: int
    seeds: int
    problem: tuple[float, ...]
    """Between problems, of the true difference."""
    interaction: tuple[float, ...]
    """Seed × problem, without sampling."""
    noise: tuple[float, ...]
    """Of one sample of each arm: the mean over problems of p(1 − p), both arms added."""
    seed: float
    """Between seeds, of the total; 0 where fewer than three seeds were run."""
    pooling: float = 1.0
    """Degrees of freedom of the seed variance, as a multiple of seeds − 1; above 1 where it is moderated."""

    def parts(self) -> tuple[float, float, float, float]:
        """(problem, its df, seed, interaction): expected contributions to the squared standard error."""
        problem, below, interaction = 0.0, 0.0, 0.0
        for n, weight, between, crossed, noise in zip(self.sizes, self.weights, self.problem, self.interaction, self.noise, strict=True):
            within = (crossed + noise / self.samples) / self.seeds
            part = weight**2 * (between + within) / n
            problem += part
            below += part**2 / max(n - 1, 1)
            interaction += weight**2 * within / n
        recipe = self.seeds >= SEEDS_FOR_RECIPE
        df = problem**2 / below if below > 0 else 1.0
        return problem, df, self.seed / self.seeds if recipe else 0.0, interaction if recipe else 0.0

    @property
    def se(self) -> float:
        """Expected standard error."""
        problem, _, seed, _ = self.parts()
        return math.sqrt(problem + seed)


def design_of(strata: Sequence[np.ndarray], weights: np.ndarray, noise: Sequence[float], samples: int) -> Design:
    """The design whose components are estimated from paired differences; each stratum is [P, M], `noise` per sample."""
    seeds = strata[0].shape[1]
    between, crossed = [], []
    for values_PM, one in zip(strata, noise, strict=True):
        n = len(values_PM)
        mean_P = values_PM.mean(axis=1)
        spread = float(mean_P.var(ddof=1)) if n > 1 else 0.0
        within = one / samples
        if seeds >= SEEDS_FOR_RECIPE and n > 1:
            rest_PM = values_PM - mean_P[:, None] - values_PM.mean(axis=0)[None, :] + values_PM.mean()
            within = float((rest_PM**2).sum()) / ((n - 1) * (seeds - 1))
        between.append(max(0.0, spread - within / seeds))
        crossed.append(max(0.0, within - one / samples))
    seed = 0.0
    if seeds >= SEEDS_FOR_RECIPE:
        total_M = sum(weight * values_PM.mean(axis=0) for values_PM, weight in zip(strata, weights, strict=True))
        inside = sum(w**2 * (c + e / samples) / len(v) for v, w, c, e in zip(strata, weights, crossed, noise, strict=True))
        seed = max(0.0, float(np.var(total_M, ddof=1)) - inside)
    return Design(
        tuple(len(v) for v in strata), tuple(float(w) for w in weights), samples, seeds, tuple(between), tuple(crossed),
        tuple(float(one) for one in noise), seed,
    )  # fmt: skip


def power(effect: float, design: Design, alpha: float = 0.05) -> float:
    """Probability that a true `effect` is found at level `alpha`, two-sided, by the test of `statistics.estimate`.

    Both variance estimates are averaged over their χ² distributions on a grid of equal probabilities.
    """
    problem, problem_df, seed, interaction = design.parts()
    if problem + seed <= 0:
        return 1.0 if effect else alpha
    middles = (np.arange(GRID) + 0.5) / GRID
    upper = 1 - alpha / 2
    problem_G = problem * stats.chi2.ppf(middles, problem_df) / problem_df
    half_GG = (stats.t.ppf(upper, problem_df) ** 2 * problem_G)[:, None]
    if design.seeds >= SEEDS_FOR_RECIPE:
        df = (design.seeds - 1) * design.pooling
        taken = taken_out(alpha, interaction / problem if problem > 0 else 1.0, df) * interaction
        seed_G = np.maximum(0.0, (seed + interaction) * stats.chi2.ppf(middles, df) / df - taken)
        half_GG = half_GG + (stats.t.ppf(upper, df) ** 2 * seed_G)[None, :]
    half_GG = np.sqrt(half_GG)
    se = math.sqrt(problem + seed)
    found = stats.norm.sf((half_GG - effect) / se) + stats.norm.cdf((-half_GG - effect) / se)
    return float(found.mean())


def detectable(design: Design, alpha: float = 0.05, wanted: float = POWER) -> float:
    """The smallest true difference found with probability `wanted`; NaN where no variance is known."""
    if not design.se > 0:
        return math.nan
    high = design.se
    while power(high, design, alpha) < wanted:
        high *= 2
        if high > 1e6:
            return math.inf
    return float(optimize.brentq(lambda effect: power(effect, design, alpha) - wanted, 0.0, high, xtol=1e-4))


@dataclass(frozen=True)
class Needed:
    """What would decide an undecided comparison, each alone; None where no amount would."""

    problems: int | None
    samples: int | None
    seeds: int | None
    goal: str
    """`difference`: to find a true difference as large as the one seen; `equality`: to show it to lie within the margin."""


def needed(value: float, design: Design, margin: float, alpha: float = 0.05) -> Needed:
    """The smallest designs, each growing one size alone, that decide a true difference of `value` (80 % power).

    Whichever of the two decisions is cheaper in problems is aimed at. With fewer than three seeds, the number of seeds
    is None: their variance is unknown.
    """

    def finds(design: Design) -> bool:
        return power(value, design, alpha) >= POWER

    def equals(design: Design) -> bool:
        shift = design.se * float(stats.norm.ppf(POWER))
        return float(stats.norm.ppf(0.95)) * design.se + shift + abs(value) <= margin

    goal, decided = "difference", finds
    factor = _smallest(lambda f: finds(_larger(design, f)), MOST_PROBLEMS)
    if abs(value) < margin:
        other = _smallest(lambda f: equals(_larger(design, f)), MOST_PROBLEMS)
        if other is not None and (factor is None or other < factor):
            goal, decided, factor = "equality", equals, other
    problems = None if factor is None else math.ceil(factor * sum(design.sizes))
    samples = _first(lambda k: decided(dataclasses.replace(design, samples=k)), design.samples, MOST_SAMPLES)
    seeds = None
    if design.seeds >= SEEDS_FOR_RECIPE:
        seeds = _first(lambda m: decided(dataclasses.replace(design, seeds=m)), design.seeds, MOST_SEEDS)
    return Needed(problems, samples, seeds, goal)


def _larger(design: Design, factor: float) -> Design:
    return dataclasses.replace(design, sizes=tuple(max(2, math.ceil(n * factor)) for n in design.sizes))


def _smallest(enough: Callable[[float], bool], most: float) -> float | None:
    low, high = 1.0, 1.0
    while not enough(high):
        low, high = high, high * 2
        if high > most:
            return None
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _first(enough: Callable[[int], bool], start: int, most: int) -> int | None:
    low, high = start, start
    while not enough(high):
        low, high = high + 1, high * 2
        if high > most:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high
