"""How well one number orders arms as another does, over the pairs that can be told apart at all."""

from __future__ import annotations

import math

import numpy as np


def pairs(arms: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second arm of every pair."""
    return np.triu_indices(arms, 1)


def signs(value_BA: np.ndarray) -> np.ndarray:
    """[B, Q]: 1, 0 or −1 for every pair of arms; 0 where they are equal or one has no number."""
    first, second = pairs(value_BA.shape[-1])
    found = np.sign(value_BA[..., first] - value_BA[..., second])
    return np.where(np.isnan(found), 0.0, found)


def tau_b(first_BA: np.ndarray, second_BA: np.ndarray, counted_Q: np.ndarray) -> np.ndarray:
    """Kendall's τ_b over the pairs marked in `counted_Q`: Σ s·t / √(Σ|s| · Σ|t|); NaN where one side orders none."""
    s, t = signs(first_BA)[..., counted_Q], signs(second_BA)[..., counted_Q]
    below = np.sqrt(np.abs(s).sum(-1) * np.abs(t).sum(-1))
    return np.divide((s * t).sum(-1), below, out=np.full(below.shape, np.nan), where=below > 0)


def rightly(first_A: np.ndarray, second_A: np.ndarray, counted_Q: np.ndarray) -> float:
    """Share of the marked pairs that both order alike; a tie of the first counts as half."""
    s, t = signs(first_A[None])[0, counted_Q], signs(second_A[None])[0, counted_Q]
    return float(np.mean((1 + s * t) / 2)) if len(s) else math.nan


def partial(tau_xy: float, tau_xz: float, tau_yz: float) -> float:
    """Kendall's partial τ of x and y given z; NaN where z orders one of them alone."""
    below = (1 - tau_xz**2) * (1 - tau_yz**2)
    return (tau_xy - tau_xz * tau_yz) / math.sqrt(below) if below > 1e-12 else math.nan


def picked(value_BA: np.ndarray, utility_BA: np.ndarray) -> np.ndarray:
    """Utility [B] of the arm with the highest value; of several, their mean. NaN where no arm has a value."""
    clean = np.where(np.isnan(value_BA), -np.inf, value_BA)
    best = (clean == clean.max(-1, keepdims=True)) & np.isfinite(clean)
    count = best.sum(-1)
    total = np.where(best, utility_BA, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def resampled(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """How often each of n things is drawn in a bootstrap of n, float64 [draws, n]."""
    return np.stack([np.bincount(rng.integers(n, size=n), minlength=n).astype(float) for _ in range(draws)])
