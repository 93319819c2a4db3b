"""A measure of whole sets of traces, also under weights, as a bootstrap over problems gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

from qup.measures.registry import find
from qup.measures.traces import Traces


def columns(traces: Traces, settings: Any) -> np.ndarray:
    """[N, C]: what a set's number is a function of the means of; a trace with a NaN counts in none."""
    module = find(settings.kind).module
    found = module.parts(traces, settings) if hasattr(module, "parts") else module.values(traces, settings)[:, None]
    return np.where(np.isfinite(found).all(1, keepdims=True), found, np.nan)


def combine(columns_NC: np.ndarray, settings: Any, weight_BN: np.ndarray | None = None) -> Any:
    """The set's number: a float, or [B] for weights [B, N]; NaN where no trace with a number has weight."""
    weights = np.ones((1, len(columns_NC))) if weight_BN is None else np.atleast_2d(weight_BN)
    there = np.isfinite(columns_NC).all(1).astype(float)
    total = weights @ there
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ np.where(there[:, None] > 0, columns_NC, 0.0) / total[:, None]
    module = find(settings.kind).module
    found = module.combined(means, settings) if hasattr(module, "combined") else means[:, 0]
    return float(found[0]) if weight_BN is None else found
