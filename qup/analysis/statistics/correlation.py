"""Rank correlation across arms with an exact permutation p-value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

FEWEST_ARMS = 8
"""Below this many arms nothing is claimed."""
EXACT_UP_TO = 13
DRAWS = 100_000


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ over `n` arms. `p` is two-sided; NaN below FEWEST_ARMS, where no claim is made."""

    rho: float
    p: float
    n: int
    exact: bool

    @property
    def claimed(self) -> bool:
        """Whether there are arms enough to say anything beyond the point value."""
        return self.n >= FEWEST_ARMS


def spearman(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Correlation:
    """Rank correlation of two values over arms; pairs with a missing value are left out, ties share their mean rank.

    The p-value is exact up to EXACT_UP_TO arms, from seeded permutations above. ρ is NaN where one side is constant.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    both = np.isfinite(x) & np.isfinite(y)
    n = int(both.sum())
    if n < 2 or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
        return Correlation(math.nan, math.nan, n, False)
    rank_x, rank_y = stats.rankdata(x[both]), stats.rankdata(y[both])
    rho = float(np.corrcoef(rank_x, rank_y)[0, 1])
    if n < FEWEST_ARMS:
        return Correlation(rho, math.nan, n, False)
    if n <= EXACT_UP_TO:
        return Correlation(rho, _exact(rank_x, rank_y), n, True)
    rng = np.random.default_rng(seed)
    centred_x, centred_y = rank_x - rank_x.mean(), rank_y - rank_y.mean()
    drawn = rng.permuted(np.tile(centred_y, (DRAWS, 1)), axis=1) @ centred_x
    seen = abs(float(centred_x @ centred_y))
    return Correlation(rho, float((1 + (np.abs(drawn) >= seen - 1e-9).sum()) / (DRAWS + 1)), n, False)


def _exact(rank_x: np.ndarray, rank_y: np.ndarray) -> float:
    """Share of all n! pairings whose |Σxy − mean| is at least the one seen, counted without listing them.

    Ranks are doubled to be whole; `count[mask]` maps a sum to the number of ways the first |mask| x's can be paired with
    the y's in `mask`. All counts are whole numbers below 2^53.
    """
    x = np.rint(2 * rank_x).astype(int)
    y = np.rint(2 * rank_y).astype(int)
    n, most = len(x), int(np.sort(x) @ np.sort(y))
    layer: dict[int, np.ndarray] = {0: np.eye(1, most + 1)[0]}
    for one in x:
        following: dict[int, np.ndarray] = {}
        for mask, count in layer.items():
            for j in range(n):
                if mask >> j & 1:
                    continue
                step = int(one * y[j])
                target = following.get(mask | 1 << j)
                if target is None:
                    target = following[mask | 1 << j] = np.zeros(most + 1)
                target[step:] += count[: most + 1 - step]
        layer = following
    (count,) = layer.values()
    middle = x.sum() * y.sum() / n
    gap = np.abs(np.arange(most + 1) - middle)
    return float(count[gap >= abs(float(x @ y) - middle) - 1e-9].sum() / count.sum())
