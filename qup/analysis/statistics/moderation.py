"""Seed variances of several comparisons, each moderated by the others.

Three seeds say little of how much seeds matter: two degrees of freedom, and t at a Holm step is 20 or more. Training
noise of similar runs is of similar size, so each comparison's seed mean square is drawn towards their common value, the
more so the less they differ among each other (empirical Bayes, Smyth 2004, doi 10.2202/1544-6115.1027). Comparisons share
arms and may differ in truth, so only a quarter of their summed degrees of freedom is credited: measured, that keeps the
family-wise error at 3 % where one arm has three times the training noise of the others, and at 6 % at six times
(docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import special

from qup.analysis.statistics.estimates import Components

CREDIT = 1 / 4


def moderated(parts: Sequence[Components]) -> list[Components]:
    """The same components with moderated seed mean squares and their degrees of freedom; all rest on the same seeds."""
    df = parts[0].seed_df if parts else 0.0
    ms = np.array([one.raw_seed for one in parts])
    if len(parts) < 2 or not (ms > 0).any():
        return list(parts)
    ms = np.maximum(ms, 1e-6 * float(np.median(ms[ms > 0])))
    prior, prior_df = _prior(ms, df)
    if math.isinf(prior_df):
        shrunk = np.full(len(ms), float(ms.mean()))
    else:
        shrunk = (prior_df * prior + df * ms) / (prior_df + df)
    credited = max(df, min(prior_df + df, CREDIT * len(parts) * df))
    if credited == df:
        return list(parts)
    return [replace(one, raw_seed=float(value), seed_df=credited) for one, value in zip(parts, shrunk, strict=True)]


def _prior(ms: np.ndarray, df: float) -> tuple[float, float]:
    """Scale and degrees of freedom of the common distribution, by moments of log mean squares; df infinite where they
    differ no more than chance makes them."""
    logs = np.log(ms) - special.digamma(df / 2) + math.log(df / 2)
    excess = float(logs.var(ddof=1)) - float(special.polygamma(1, df / 2))
    if excess <= 0:
        return float(np.exp(logs.mean())), math.inf
    half = _trigamma_inverse(excess)
    return float(np.exp(logs.mean() + special.digamma(half) - math.log(half))), 2 * half


def _trigamma_inverse(value: float) -> float:
    """Newton's method on 1/trigamma, which is convex and nearly linear."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, y))
        y += step
        if abs(step) < 1e-9 * y:
            break
    return y
