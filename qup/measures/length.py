"""Length: the control that several other measures turn out to be. Tokens, steps, or tokens a step; shorter counts as better."""

from __future__ import annotations

import numpy as np

from qup.measures.registry import Settings
from qup.measures.traces import Traces, ratio


def values(traces: Traces, settings: Settings) -> np.ndarray:
    """[N], the stop token left out."""
    match settings.unit:
        case "tokens":
            return traces.tokens_N
        case "steps":
            return traces.steps_N
        case "tokens_a_step":
            return ratio(traces.tokens_N, traces.steps_N)
        case unit:
            raise ValueError(f"length in {unit!r}; valid: tokens, steps, tokens_a_step")
