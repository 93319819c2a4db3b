"""Integrals, limits and infinite sums, by sympy: worked out, then compared as expressions."""

from __future__ import annotations

from typing import Any

from qup.answers.reading.tokens import Unreadable
from qup.answers.reading.vocabulary import Node


def same_by_calculus(left: Node, right: Node) -> bool | None:
    """Whether two expressions are the same once sympy has worked them out; None where it cannot, or does not get to zero."""
    import sympy

    values = [_sympy(node).doit() for node in (left, right)]
    if any(value.has(sympy.Integral, sympy.Limit, sympy.Sum, sympy.Product, sympy.nan, sympy.zoo) for value in values):
        return None
    if any(value.is_infinite for value in values):
        return bool(values[0] == values[1])
    gap = sympy.simplify(values[0] - values[1])
    if gap == 0:
        return True
    numeric = gap.evalf(30)
    return False if numeric.is_number and abs(numeric) > 1e-20 else None


def _sympy(node: Node) -> Any:
    import sympy as sp

    kind = node[0]
    parts = [_sympy(part) for part in node[1:] if isinstance(part, tuple)]
    if kind == "num":
        return sp.Rational(node[1].numerator, node[1].denominator)
    if kind == "sym":
        return sp.Symbol(node[1], real=True)
    if kind == "const":
        return {"pi": sp.pi, "e": sp.E, "i": sp.I, "oo": sp.oo}[node[1]]
    if kind in ("add", "mul"):
        return (sp.Add if kind == "add" else sp.Mul)(*parts)
    if kind == "pow":
        return sp.Pow(*parts)
    if kind == "root":
        return sp.real_root(parts[0], node[1]) if node[1] % 2 else sp.root(parts[0], node[1])
    if kind in ("sum", "prod", "int", "lim"):
        variable = sp.Symbol(node[1], real=True)
        if kind == "lim":
            return sp.Limit(parts[1], variable, parts[0], "+-" if parts[0].is_finite else "+")
        if kind == "int":
            return sp.Integral(parts[-1], (variable, *parts[:-1]) if len(parts) > 1 else variable)
        return (sp.Sum if kind == "sum" else sp.Product)(parts[2], (variable, parts[0], parts[1]))
    name: str = {"ln": "log", "abs": "Abs", "sgn": "sign", "min": "Min", "max": "Max", "ceil": "ceiling"}.get(node[1]) or str(node[1])
    if name.startswith("arc"):
        name = "a" + name[3:]
    function = getattr(sp, name, None)
    if function is None:
        raise Unreadable(f"{node[1]} is not worked out")
    return function(*parts)
