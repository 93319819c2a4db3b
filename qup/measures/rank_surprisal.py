"""Rank-surprisal ratio (arXiv 2601.14249): Σ clipped rank ÷ Σ NLL of a trace.

Of a set: the mean over traces of the average rank, divided by the mean over traces of the average NLL.
"""

from __future__ import annotations

import numpy as np

from qup.measures.registry import Settings
from qup.measures.traces import Traces, ratio


def values(traces: Traces, settings: Settings) -> np.ndarray:
    """[N] ranks a nat."""
    return ratio(traces.rank_N, traces.nll_N)


def parts(traces: Traces, settings: Settings) -> np.ndarray:
    """[N, 2]: average rank, average NLL."""
    return np.stack([ratio(traces.rank_N, traces.tokens_N), ratio(traces.nll_N, traces.tokens_N)], 1)


def combined(mean_C: np.ndarray, settings: Settings) -> np.ndarray:
    """[…, 2] means → […]."""
    return ratio(mean_C[..., 0], mean_C[..., 1])
