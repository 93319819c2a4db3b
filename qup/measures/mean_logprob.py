"""Mean log-probability of a trace's tokens under the untuned student (GRAPE, arXiv 2502.04194): −Σ NLL / T, in nats.

Perplexity is exp of its negative.
"""

from __future__ import annotations

import numpy as np

from qup.measures.registry import Settings
from qup.measures.traces import Traces, ratio


def values(traces: Traces, settings: Settings) -> np.ndarray:
    """[N] nats a token, at most 0."""
    return -ratio(traces.nll_N, traces.tokens_N)
