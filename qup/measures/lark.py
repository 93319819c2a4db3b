"""LARK (arXiv 2605.30651): which of a problem's candidates promises the largest drop in loss for a step of training.

L_k is a candidate's mean NLL, Brier_k the mean over its tokens of 1 − 2p(y) + Σ p², ρ_k = Brier_k / L_k. Among the
candidates of one problem ĝ_k = L_k / ΣL · (2ρ_k − Σρ_i L_i / ΣL_i).
"""

from __future__ import annotations

import numpy as np

from qup.measures.registry import Settings
from qup.measures.traces import Traces, ratio


def values(traces: Traces, settings: Settings) -> np.ndarray:
    """[N] ĝ among the given traces of the same problem; of a problem's only candidate it is ρ. NaN where nothing was scored."""
    brier_N = {"top": traces.brier_top_N, "full": traces.brier_N}[settings.brier]
    loss_N = ratio(traces.nll_N, traces.tokens_N)
    brier_N = ratio(brier_N, traces.tokens_N)
    there = np.isfinite(loss_N) & np.isfinite(brier_N)
    _, group_N = np.unique(traces.problem_N, return_inverse=True)
    total_N = np.bincount(group_N, np.where(there, loss_N, 0.0))[group_N]
    brier_total_N = np.bincount(group_N, np.where(there, brier_N, 0.0))[group_N]
    rho_N = np.where(loss_N > 0, ratio(brier_N, loss_N), 0.0)
    found = ratio(loss_N, total_N) * (2 * rho_N - ratio(brier_total_N, total_N))
    return np.where(there, found, np.nan)


def weights(g_hat: np.ndarray, keep: int) -> np.ndarray:
    """χ²-tempered weights of one problem's candidates [K]: 0 but for the `keep` of highest ĝ, their sum 1.

    w_k ∝ ĝ_k − ĝ_(keep+1). Where no candidate is left out the threshold lies 1e-8 below the least, as in the authors'
    code; equal ĝ weigh alike. A NaN never gets weight, unless all are NaN, which then weigh alike. Ties go to the
    candidate that stands first.
    """
    g_hat = np.asarray(g_hat, float)
    if keep < 1 or not len(g_hat):
        raise ValueError(f"{keep} of {len(g_hat)} candidates; at least 1 of 1")
    clean = np.where(np.isnan(g_hat), -np.inf, g_hat)
    order = np.argsort(-clean, kind="stable")
    order = order[np.isfinite(clean[order])]
    if not len(order):
        return np.full(len(g_hat), 1.0 / len(g_hat))
    top = order[:keep]
    threshold = clean[order[keep]] if len(order) > keep else clean[top[-1]] - 1e-8
    above = clean[top] - threshold
    found = np.zeros(len(g_hat))
    found[top] = above / above.sum() if above.mean() > 1e-12 else 1.0 / len(top)
    return found
