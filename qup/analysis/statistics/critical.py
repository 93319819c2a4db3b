"""Critical values for a standard error that has a well-known part (problems) and a poorly known one (few seeds).

With m seeds the seed part rests on m − 1 degrees of freedom, and the usual route (subtract the sampling part from the
seed mean square, floor at zero, one t quantile with Satterthwaite's degrees of freedom) rejects 15 times too often at
α = 0.001 with three seeds: a seed mean square near zero is not rare, and is then taken for "seeds do not matter".
Here each part keeps its own t quantile,

    h² = t²(problem df) · problem + t²(seed df) · max(0, raw − c·interaction),

and only so much `c` of the sampling part is taken out of the raw seed mean square that the error stays within
1.2 α (94 % coverage, 6 % family-wise) whatever the true seed variance is. c is near 1 at α = 0.05 and goes to 0 as α does. docs/statistics.md has the measurements.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import special, stats

ALPHAS = np.logspace(-9, math.log10(0.999), 56)
"""Levels for which c is worked out; between them it is interpolated."""
_SEED_VARIANCES = np.concatenate([[0.0], np.logspace(-1.5, 2.5, 28)])
_NODES = 240
_STEPS = 12
MOST_DF = 200.0
TOLERANCE = 1.2
"""Worst error over all seed variances, in units of α."""


@functools.cache
def _table(share: float, seed_df: float) -> np.ndarray:
    """c for every level in ALPHAS, where the interaction is `share` of the problem part."""
    root = (np.arange(_NODES) + 0.5) / _NODES
    mean_square_Q = stats.chi2.ppf(root**2, seed_df) / seed_df
    probability_Q = 2 * root / (2 * root).sum()
    raw_SQ = (_SEED_VARIANCES + share)[:, None] * mean_square_Q[None, :]
    spread_S1 = np.sqrt(1 + _SEED_VARIANCES)[:, None]
    z_A = stats.norm.isf(ALPHAS / 2)
    t_A = stats.t.isf(ALPHAS / 2, seed_df)
    low_A, high_A = np.zeros(len(ALPHAS)), np.ones(len(ALPHAS))

    def worst(c_A: np.ndarray) -> np.ndarray:
        found = np.empty(len(ALPHAS))
        for a, c in enumerate(c_A):
            half_SQ = np.sqrt(z_A[a] ** 2 + t_A[a] ** 2 * np.maximum(0.0, raw_SQ - c * share))
            found[a] = float((2 * special.ndtr(-half_SQ / spread_S1) @ probability_Q).max())
        return found

    whole = worst(high_A) <= TOLERANCE * ALPHAS
    for _ in range(_STEPS):
        middle_A = (low_A + high_A) / 2
        fits = worst(middle_A) <= TOLERANCE * ALPHAS
        low_A, high_A = np.where(fits, middle_A, low_A), np.where(fits, high_A, middle_A)
    return np.maximum.accumulate(np.where(whole, 1.0, low_A))


def taken_out(alpha: float, share: float, seed_df: float) -> float:
    """The share c of the interaction that may be subtracted from the seed mean square at level `alpha`.

    `share` is interaction ÷ problem part; it and the degrees of freedom are rounded to the side that subtracts less.
    """
    rounded = min(1.0, math.ceil(max(share, 0.01) * 10) / 10)
    return float(
        np.interp(
            math.log(min(max(alpha, ALPHAS[0]), ALPHAS[-1])), np.log(ALPHAS), _table(rounded, float(math.floor(min(seed_df, MOST_DF))))
        )
    )
