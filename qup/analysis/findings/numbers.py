"""Numbers as a reader sees them, with their units."""

from __future__ import annotations

import math

from qup.analysis.statistics.estimates import Estimate

MINUS, THIN = "−", "\u202f"
"""A true minus sign, and the narrow space that parts thousands."""


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; a true minus sign."""
    if not math.isfinite(value):
        return "–"
    return f"{value:+.{digits}f}".replace("-", MINUS)


def plain(value: float | None, digits: int = 2) -> str:
    """A number, an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if digits == 0 and abs(value) < 1e15:
        return f"{value:,.0f}".replace(",", THIN).replace("-", MINUS)
    return (f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.1e}").replace("-", MINUS)


def difference(one: Estimate | None, digits: int = 2) -> str:
    """`−3.51 [−5.01, −2.00]`."""
    if one is None or not math.isfinite(one.value):
        return "not measured"
    return signed(one.value, digits) + bounds(one, digits)


def points(one: Estimate | None, digits: int = 1) -> str:
    """`−3.5 points [−5.0, −2.0]`: a difference of accuracies in percent."""
    if one is None or not math.isfinite(one.value):
        return "not measured"
    return f"{signed(one.value, digits)} points{bounds(one, digits)}"


def bounds(one: Estimate, digits: int) -> str:
    """The 95 % interval of a difference, with a space before it; "" where there is none."""
    return f" [{signed(one.low, digits)}, {signed(one.high, digits)}]" if math.isfinite(one.low) else ""


def value(one: Estimate | None, digits: int = 2) -> str:
    """`37.06 [35.1, 39.0]`."""
    if one is None or not math.isfinite(one.value):
        return "–"
    if not math.isfinite(one.low):
        return plain(one.value, digits)
    return f"{plain(one.value, digits)} [{plain(one.low, digits)}, {plain(one.high, digits)}]"


def probability(p: float) -> str:
    """`p = 0.031`, `p < 0.001`."""
    if not math.isfinite(p):
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def joined(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
