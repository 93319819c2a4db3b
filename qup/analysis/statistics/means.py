"""Estimates of single means, ratios and differences over traces."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qup.analysis.statistics.estimates import SEEDS_FOR_RECIPE, Components, Estimate, components, estimate


def mean_of(values: np.ndarray) -> Estimate:
    """Mean of the finite entries with a t interval; NaN everywhere where there is none."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if len(finite) == 0:
        return unknown("no finite value")
    if len(finite) == 1:
        return dataclasses.replace(unknown("a single value"), value=float(finite[0]), n=1)
    return dataclasses.replace(estimate([finite[:, None]], np.ones(1)), method="t over traces")


def ratio_of(above: np.ndarray, below: np.ndarray) -> Estimate:
    """Σ above / Σ below over traces, with the t interval of its linearisation (traces are the random level)."""
    total = float(np.sum(below))
    if len(above) < 2 or total <= 0:
        return unknown("fewer than two traces")
    value = float(np.sum(above)) / total
    influence = len(above) * (above - value * below) / total
    spread = mean_of(influence)
    return shifted(spread, value, "t over traces, linearised ratio")


def log_ratio_difference(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> Estimate:
    """(Σa/Σb of first) − (Σa/Σb of second) on the same problems, paired: the difference of two log perplexities."""
    value, influence = 0.0, np.zeros(len(first[0]))
    for sign, (above, below) in ((1.0, first), (-1.0, second)):
        total = float(np.sum(below))
        if total <= 0 or len(above) < 2:
            return unknown("fewer than two traces")
        ratio = float(np.sum(above)) / total
        value += sign * ratio
        influence = influence + sign * len(above) * (above - ratio * below) / total
    spread = mean_of(influence)
    parts = components([influence[:, None]], np.ones(1))
    return dataclasses.replace(shifted(spread, value, "t over problems, paired"), p=parts.p_value(value))


def shifted(spread: Estimate, value: float, method: str) -> Estimate:
    """The interval of a deviation around zero, laid around `value`."""
    move = value - spread.value
    return dataclasses.replace(
        spread,
        value=value,
        low=spread.low + move,
        high=spread.high + move,
        low90=spread.low90 + move,
        high90=spread.high90 + move,
        p=math.nan,
        method=method,
    )


def exponential(log_scale: Estimate) -> Estimate:
    """A log-scale estimate brought back: perplexity from nats a token."""
    names = ("value", "low", "high", "low90", "high90")
    powers: dict[str, Any] = {name: math.exp(min(getattr(log_scale, name), 700.0)) for name in names}
    return dataclasses.replace(log_scale, **powers, se=math.nan)


def unknown(why: str) -> Estimate:
    """An estimate that could not be made."""
    nan = math.nan
    return Estimate(nan, nan, nan, nan, nan, nan, nan, nan, 0, 0, why)


def combined(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over replicates whose traces differ: t over the replicates from three on, else over their traces."""
    values = np.array([one.value for one in estimates])
    if len(estimates) == 1:
        return estimates[0]
    if len(estimates) >= SEEDS_FOR_RECIPE:
        return dataclasses.replace(mean_of(values), n=sum(one.n for one in estimates), seeds=len(estimates), method="t over replicates")
    se = math.sqrt(sum(one.se**2 for one in estimates)) / len(estimates)
    df = min(one.df for one in estimates)
    parts = Components(se**2, df, 0.0, 0.0, 1, 1)
    value = float(values.mean())
    wide, narrow = parts.half_width(0.05), parts.half_width(0.10)
    return Estimate(
        value, value - wide, value + wide, value - narrow, value + narrow, se, parts.p_value(value), df,
        sum(one.n for one in estimates), len(estimates), "t over traces; these replicates",
    )  # fmt: skip
