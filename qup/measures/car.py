"""Compatibility-adjusted reward of a set (arXiv 2411.07133): r̄ / (1 + β · mean NLL a token).

Defined for rewards of at least 0: with a negative mean reward a dearer trace would look better. `values` is an extension
of ours, the same for one trace; a selection by CAR reads that.
"""

from __future__ import annotations

import numpy as np

from qup.measures.registry import Settings
from qup.measures.traces import Traces, ratio


def shifted(reward_N: np.ndarray) -> tuple[np.ndarray, float]:
    """Rewards less their minimum where that is below 0, and the minimum that was taken off (0.0 where none was)."""
    least = float(np.nanmin(reward_N, initial=0.0))
    return reward_N - least, least


def values(traces: Traces, settings: Settings) -> np.ndarray:
    """[N] r / (1 + β · NLL a token), rewards as they come; `shifted` makes them sound beforehand."""
    return traces.reward_N / (1.0 + settings.beta * ratio(traces.nll_N, traces.tokens_N))


def parts(traces: Traces, settings: Settings) -> np.ndarray:
    """[N, 2]: reward, average NLL; both NaN where one is."""
    columns = np.stack([traces.reward_N, ratio(traces.nll_N, traces.tokens_N)], 1)
    return np.where(np.isnan(columns).any(1, keepdims=True), np.nan, columns)


def combined(mean_C: np.ndarray, settings: Settings) -> np.ndarray:
    """[…, 2] means → […]."""
    return np.asarray(mean_C[..., 0] / (1.0 + settings.beta * mean_C[..., 1]))
