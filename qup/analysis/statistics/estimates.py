"""Estimates with intervals: means over benchmarks of problems, by bootstrap over problems or by t.

Axes: benchmark b (a stratum), problem P, seed M (one trained checkpoint each), column C (arms side by side).
All values are on the scale they come in; accuracies are percent points. Nothing here draws global randomness.

Two sources of noise. With fewer than three seeds the intervals speak of *these checkpoints*: problems are the only
random level. From three seeds on, seed is a random level crossed with problem, and intervals speak of the recipe.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from qup.analysis.statistics.critical import ALPHAS, taken_out

RESAMPLES = 4000
SEEDS_FOR_RECIPE = 3
"""From so many seeds on, seed is a random level."""


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty. `low` and `high` bound 95 %, `low90` and `high90` 90 %; NaN where unknown."""

    value: float
    low: float
    high: float
    low90: float
    high90: float
    se: float
    p: float
    """Two-sided p-value of value = 0; NaN where no test was made."""
    df: float
    """Satterthwaite's degrees of freedom."""
    n: int
    """Problems (or traces) it rests on."""
    seeds: int
    method: str

    @property
    def half(self) -> float:
        """Half the width of the 95 % interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Components:
    """What the variance of a mean over benchmarks is made of: `problem` + `seed`.

    `problem` and `seed` are contributions to the squared standard error. `interaction` is the part of `raw_seed` that
    is seed × problem and sampling, and so no seed effect; it is in `problem` already.
    """

    problem: float
    problem_df: float
    raw_seed: float
    interaction: float
    seed_df: float
    interaction_df: float

    @property
    def seed(self) -> float:
        return max(0.0, self.raw_seed - self.interaction)

    @property
    def variance(self) -> float:
        return self.problem + self.seed

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom of `variance`."""
        parts = [(self.problem, self.problem_df)]
        if self.seed > 0:
            parts += [(self.raw_seed, self.seed_df), (self.interaction, self.interaction_df)]
        below = sum(part**2 / df for part, df in parts if df > 0)
        return self.variance**2 / below if below > 0 else math.inf

    def half_width(self, alpha: float) -> float:
        """Half the width of the 1 − alpha interval: t by Satterthwaite within problems, and apart for seeds (critical.py)."""
        upper = 1 - alpha / 2
        square = float(stats.t.ppf(upper, self.problem_df)) ** 2 * self.problem
        if self.raw_seed > 0:
            share = self.interaction / self.problem if self.problem > 0 else 1.0
            taken = taken_out(alpha, share, self.seed_df) * self.interaction
            square += float(stats.t.ppf(upper, self.seed_df)) ** 2 * max(0.0, self.raw_seed - taken)
        return math.sqrt(square)

    def p_value(self, value: float) -> float:
        """Two-sided p-value of zero: the alpha whose interval just touches it."""
        if self.variance <= 0:
            return 1.0 if value == 0 else 0.0
        if self.raw_seed <= 0:
            return float(2 * stats.t.sf(abs(value) / math.sqrt(self.problem), self.problem_df))
        low, high = math.log(ALPHAS[0]), math.log(ALPHAS[-1])

        def gap(log_alpha: float) -> float:
            return self.half_width(math.exp(log_alpha)) - abs(value)

        if gap(high) >= 0:
            return 1.0
        if gap(low) <= 0:
            return float(ALPHAS[0])
        return math.exp(float(optimize.brentq(gap, low, high, xtol=1e-9)))


def coefficients(sizes: Sequence[int], *, pooled: bool = False) -> np.ndarray:
    """Weights of the benchmarks: equal (the macro total), or by size (`pooled`)."""
    counts = np.asarray(sizes, dtype=float)
    return counts / counts.sum() if pooled else np.full(len(counts), 1 / len(counts))


def components(strata: Sequence[np.ndarray], weights: np.ndarray) -> Components:
    """Variance components of Σ_b w_b · mean(strata_b); each stratum is [P, M], problem by seed.

    With fewer than three seeds the seed part is left out: the mean over the given checkpoints is what is estimated.
    """
    seeds = strata[0].shape[1]
    problem, problem_below = 0.0, 0.0
    interaction, interaction_below = 0.0, 0.0
    for values_PM, weight in zip(strata, weights, strict=True):
        n = values_PM.shape[0]
        mean_P = values_PM.mean(axis=1)
        part = weight**2 * float(mean_P.var(ddof=1)) / n if n > 1 else 0.0
        problem += part
        problem_below += part**2 / max(n - 1, 1)
        if seeds >= SEEDS_FOR_RECIPE and n > 1:
            rest_PM = values_PM - mean_P[:, None] - values_PM.mean(axis=0)[None, :] + values_PM.mean()
            df = (n - 1) * (seeds - 1)
            share = weight**2 * float((rest_PM**2).sum()) / df / (n * seeds)
            interaction += share
            interaction_below += share**2 / df
    raw_seed = 0.0
    if seeds >= SEEDS_FOR_RECIPE:
        total_M = sum(weight * values_PM.mean(axis=0) for values_PM, weight in zip(strata, weights, strict=True))
        raw_seed = float(np.var(total_M, ddof=1)) / seeds
    return Components(
        problem=problem,
        problem_df=problem**2 / problem_below if problem_below > 0 else float(max(sum(len(v) for v in strata) - len(strata), 1)),
        raw_seed=raw_seed,
        interaction=interaction,
        seed_df=max(seeds - 1, 1),
        interaction_df=interaction**2 / interaction_below if interaction_below > 0 else 1.0,
    )


def estimate(strata: Sequence[np.ndarray], weights: np.ndarray, *, bound: float = math.inf) -> Estimate:
    """Σ_b w_b · mean(strata_b) with a t interval; each stratum is [P, M].

    `bound` is the largest absolute value an entry can take: where nothing varies the interval is what n problems
    without an event allow (exact binomial), instead of a width of zero.
    """
    check(strata)
    seeds = strata[0].shape[1]
    parts = components(strata, weights)
    value = float(sum(weight * values_PM.mean() for values_PM, weight in zip(strata, weights, strict=True)))
    if parts.variance <= 0:
        method = f"t over problems and {seeds} seeds" if seeds >= SEEDS_FOR_RECIPE else "t over problems; these checkpoints"
        return _constant(value, strata, weights, bound, seeds, method)
    return of_components(value, parts, sum(len(values_PM) for values_PM in strata), seeds)


def of_components(value: float, parts: Components, n: int, seeds: int) -> Estimate:
    """A value with intervals and p from its variance components (not all zero)."""
    wide, narrow = parts.half_width(0.05), parts.half_width(0.10)
    method = "t over problems; these checkpoints"
    if seeds >= SEEDS_FOR_RECIPE:
        method = f"t over problems and {seeds} seeds" + (", seed variance moderated" if parts.seed_df > seeds - 1 else "")
    return Estimate(
        value, value - wide, value + wide, value - narrow, value + narrow,
        math.sqrt(parts.variance), parts.p_value(value), parts.df, n, seeds, method,
    )  # fmt: skip


def _constant(value: float, strata: Sequence[np.ndarray], weights: np.ndarray, bound: float, seeds: int, method: str) -> Estimate:
    def width(alpha: float) -> float:
        reach = [float(weight) * bound * (1 - alpha ** (1 / len(values_PM))) for values_PM, weight in zip(strata, weights, strict=True)]
        return math.sqrt(sum(one**2 for one in reach))

    wide, narrow = (width(0.025), width(0.05)) if math.isfinite(bound) else (math.nan, math.nan)
    n = sum(len(values_PM) for values_PM in strata)
    p = 1.0 if value == 0 else math.nan
    return Estimate(
        value, value - wide, value + wide, value - narrow, value + narrow, 0.0, p, math.nan, n, seeds, f"{method}; nothing varies"
    )


def check(strata: Sequence[np.ndarray]) -> None:
    """Raises ValueError where strata are missing, empty, of unequal seeds, or hold NaN."""
    if not strata:
        raise ValueError("no benchmark to average over")
    for values_PM in strata:
        if values_PM.ndim != 2 or values_PM.size == 0:
            raise ValueError(f"a benchmark of shape {values_PM.shape}: expected [problems, seeds] with at least one of each")
        if values_PM.shape[1] != strata[0].shape[1]:
            raise ValueError("benchmarks with different numbers of seeds")
        if not np.isfinite(values_PM).all():
            raise ValueError("a problem without a score")


def bootstrap(
    strata: Sequence[np.ndarray], weights: np.ndarray, *, bounds: tuple[float, float], seed: int = 0, resamples: int = RESAMPLES
) -> list[Estimate]:
    """Σ_b w_b · mean(strata_b) for C arms at once, with BCa intervals from resampled problems; each stratum is [P, C].

    A problem's k samples stay together because only their mean comes in. Deviations are widened by √(n/(n−1)) and the
    normal quantiles by t, which mends the bootstrap's narrowness in small benchmarks (Hesterberg 2015, arXiv 1411.5279).
    `bounds` is the range of an entry: intervals stay inside, and a column without variance gets an exact binomial one.
    """
    check(strata)
    columns = strata[0].shape[1]
    rng = np.random.default_rng(seed)
    value_C = np.zeros(columns)
    deviation_RC = np.zeros((resamples, columns))
    second_C, third_C = np.zeros(columns), np.zeros(columns)
    variance_C, below_C = np.zeros(columns), np.zeros(columns)
    for values_PC, weight in zip(strata, weights, strict=True):
        n = len(values_PC)
        centre_C = values_PC.mean(axis=0)
        spread_PC = weight * (values_PC - centre_C)
        counts_RP = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float32)
        stretch = math.sqrt(n / (n - 1)) if n > 1 else 1.0
        deviation_RC += (counts_RP @ spread_PC.astype(np.float32)).astype(float) * (stretch / n)
        value_C += weight * centre_C
        second_C += (spread_PC**2).sum(axis=0) / n**2
        third_C += (spread_PC**3).sum(axis=0) / n**3
        part_C = (spread_PC**2).sum(axis=0) / max(n - 1, 1) / n
        variance_C += part_C
        below_C += part_C**2 / max(n - 1, 1)
    n = sum(len(values_PC) for values_PC in strata)
    made = []
    for c in range(columns):
        value, variance = float(value_C[c]), float(variance_C[c])
        if variance <= 0:
            flat = _constant(value, [v[:, [c]] for v in strata], weights, bounds[1] - bounds[0], 1, "bootstrap over problems")
            made.append(_clip(flat, bounds))
            continue
        df = variance**2 / below_C[c]
        acceleration = third_C[c] / (6 * second_C[c] ** 1.5)
        draws_R = np.sort(deviation_RC[:, c])
        bias = _bias(draws_R)
        low, high = _bca(draws_R, bias, acceleration, df, 0.05)
        low90, high90 = _bca(draws_R, bias, acceleration, df, 0.10)
        whole = Estimate(
            value, value + low, value + high, value + low90, value + high90,
            math.sqrt(variance), math.nan, df, n, 1, "BCa bootstrap over problems; these checkpoints",
        )  # fmt: skip
        made.append(_clip(whole, bounds))
    return made


def _bias(draws_R: np.ndarray) -> float:
    below = (np.searchsorted(draws_R, 0.0, "left") + np.searchsorted(draws_R, 0.0, "right")) / 2 / len(draws_R)
    return float(stats.norm.ppf(min(max(below, 1e-4), 1 - 1e-4)))


def _bca(draws_R: np.ndarray, bias: float, acceleration: float, df: float, alpha: float) -> tuple[float, float]:
    reach = float(stats.t.ppf(1 - alpha / 2, df))
    shares = []
    for sign in (-1.0, 1.0):
        z = bias + sign * reach
        shares.append(float(stats.norm.cdf(bias + z / max(1 - acceleration * z, 0.1))))
    low, high = np.quantile(draws_R, np.clip(shares, 0, 1))
    return float(low), float(high)


def _clip(whole: Estimate, bounds: tuple[float, float]) -> Estimate:
    names = ("low", "high", "low90", "high90")
    return dataclasses.replace(whole, **{name: min(max(getattr(whole, name), bounds[0]), bounds[1]) for name in names})


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order; NaN stays NaN and does not count (Holm 1979)."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = running
    return [float(one) for one in adjusted]
