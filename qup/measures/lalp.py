"""Local average log-probability (arXiv 2510.03988): each step scored given the prompt and only the last k steps.

A pass of its own (qup/scoring/windows.py) gives each step's tokens their NLL; here is what they come to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def seen(step: int, window: float) -> int:
    """How many steps before step `step` (from 0) it is scored with: a share of them, rounded up, below 1; else a number."""
    if step == 0:
        return 0
    return min(step, math.ceil(window * step) if window < 1 else int(window))


def value(nll_of_steps: Sequence[np.ndarray]) -> float:
    """Mean over a step's tokens, then mean over steps, in nats; NaN without any. `nll_of_steps`: one array a step."""
    means = [float(np.mean(nll, dtype=float)) for nll in nll_of_steps if len(nll)]
    return -float(np.mean(means)) if means else float("nan")
