"""ASLEC-CASL (arXiv 2604.06834): naturalness without its length trend.

Over all candidates M ≈ β₁·M_non + β₂·M_first + γ·F + c by least squares, where M, M_first and M_non are the mean
log-probabilities of all, of the first and of the other tokens of steps, and F the share of first tokens; score = M − γF.
"""

from __future__ import annotations

import numpy as np

from qup.measures.registry import Settings
from qup.measures.traces import Traces, ratio


def values(traces: Traces, settings: Settings) -> np.ndarray:
    """[N] nats a token; NaN where a trace has no first or no other tokens. Depends on all traces given."""
    mean_N, share_N, gamma = fitted(traces)
    return mean_N - gamma * share_N


def fitted(traces: Traces) -> tuple[np.ndarray, np.ndarray, float]:
    """M and F of every trace (NaN where M_non or M_first do not exist), and γ: 0 where F does not vary."""
    mean_N = -ratio(traces.nll_N, traces.tokens_N)
    first_N = -ratio(traces.first_nll_N, traces.first_N)
    other_N = -ratio(traces.nll_N - traces.first_nll_N, traces.tokens_N - traces.first_N)
    share_N = ratio(traces.first_N, traces.tokens_N)
    table = np.stack([other_N, first_N, share_N, mean_N], 1)
    there = np.isfinite(table).all(1)
    mean_N = np.where(there, mean_N, np.nan)
    if not there.any():
        return mean_N, share_N, 0.0
    off = table[there] - table[there].mean(0)
    spread = off[:, :3].std(0)
    vary = spread > 1e-12 * np.maximum(np.abs(table[there][:, :3]).max(0), 1e-300)
    if not vary[2]:
        return mean_N, share_N, 0.0
    scaled = off[:, :3][:, vary] / spread[vary]
    slopes = np.linalg.lstsq(scaled, off[:, 3], rcond=1e-10)[0] / spread[vary]
    return mean_N, share_N, float(slopes[-1])
