"""Exact values of expressions of rational numbers."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from qup.answers.reading.vocabulary import Node

_LARGEST = 20_000
"""Bits of an exact power; decimal digits are about a third."""


def rational(node: Node) -> Fraction | None:
    """The exact value of an expression of rational numbers; None where it is none or is too large to write down."""
    kind = node[0]
    if kind == "num":
        return node[1]  # type: ignore[no-any-return]
    if kind in ("add", "mul"):
        total = Fraction(0 if kind == "add" else 1)
        for part in node[1:]:
            value = rational(part)
            if value is None:
                return None
            total = total + value if kind == "add" else total * value
            if total.numerator.bit_length() + total.denominator.bit_length() > _LARGEST:
                return None
        return total
    if kind == "pow":
        base, exponent = rational(node[1]), rational(node[2])
        if base is None or exponent is None or exponent.denominator != 1 or (base == 0 and exponent < 0):
            return None
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        return base ** int(exponent) if abs(exponent) * size <= _LARGEST else None
    if kind == "fn" and node[1] in ("factorial", "binomial", "abs", "floor", "ceil", "gcd", "lcm", "min", "max", "permutations", "mod"):
        values = [rational(part) for part in node[2:]]
        return None if None in values else _exact(node[1], values)  # type: ignore[arg-type]
    return None


def _exact(name: str, values: list[Fraction]) -> Fraction | None:
    if name == "mod":
        return values[0] % values[1] if values[1] else None
    if name in ("abs", "floor", "ceil", "min", "max"):
        functions: dict[str, Any] = {"abs": abs, "floor": math.floor, "ceil": math.ceil}
        return Fraction(functions[name](values[0])) if name in functions else (min if name == "min" else max)(values)
    if any(value.denominator != 1 or value < 0 or value > 2000 for value in values) and name not in ("gcd", "lcm"):
        return None
    if any(value.denominator != 1 for value in values):
        return None
    integers = [int(value) for value in values]
    counting: dict[str, Any] = {
        "factorial": math.factorial,
        "binomial": math.comb,
        "permutations": math.perm,
        "gcd": math.gcd,
        "lcm": math.lcm,
    }
    return Fraction(counting[name](*integers))
