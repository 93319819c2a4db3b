"""ASLEC-DROP (arXiv 2604.06834): mean log-probability without the first token(s) of every step."""

from __future__ import annotations

import numpy as np

from qup.measures.registry import Settings
from qup.measures.traces import Traces, ratio


def values(traces: Traces, settings: Settings) -> np.ndarray:
    """[N] nats a token; NaN where a trace has nothing but first tokens."""
    return -ratio(traces.nll_N - traces.first_nll_N, traces.tokens_N - traces.first_N)
