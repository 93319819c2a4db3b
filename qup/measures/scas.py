"""SCAS's learning cost (arXiv 2605.26872): (1−λ)·d_A²·AA + λ·d_A·d_Q·AQ.

d_A and d_Q are the mean NLL over the response's and the question's tokens. Activations are those of the last block's
mlp.up_proj, each token's normalised to length 1; μ_A, μ_Q are their means, AA = ‖μ_A‖², AQ = μ_A·μ_Q.
"""

from __future__ import annotations

import numpy as np

from qup.measures.registry import Settings
from qup.measures.traces import Traces, ratio


def values(traces: Traces, settings: Settings) -> np.ndarray:
    """[N]; NaN where the student's activations were not recorded."""
    d_a = ratio(traces.nll_N, traces.tokens_N)
    d_q = ratio(traces.question_nll_N, traces.question_tokens_N)
    return (1 - settings.weight) * d_a**2 * traces.aa_N + settings.weight * d_a * d_q * traces.aq_N
