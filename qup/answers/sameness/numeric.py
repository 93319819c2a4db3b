"""Values of expressions at a point, at any precision, by mpmath."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from qup.answers.reading.tokens import Unreadable
from qup.answers.reading.vocabulary import Node
from qup.answers.sameness.exact import rational
from qup.answers.sameness.inspection import calculus, has, names


class Unreal(Exception):
    """Not a real number where real numbers are asked."""


def number_value(node: Node, digits: int = 60) -> Any:
    """The real value of an expression without names, as an mpf; None where it has none."""
    import mpmath

    if names(node) or has(node, "oo") or calculus(node):
        return None
    try:
        with mpmath.workdps(digits):
            return evaluate(node, {}, True)
    except (Unreal, ZeroDivisionError):
        return None


def evaluate(node: Node, point: Mapping[str, Any], real: bool) -> Any:
    """The value of an expression at a point, at mpmath's precision.

    `real`: odd roots of negative numbers are real, and what has no real value raises; otherwise principal values.
    """
    import mpmath as mp

    kind = node[0]
    if kind == "num":
        return mp.mpf(node[1].numerator) / node[1].denominator
    if kind == "sym":
        value = point[node[1]]
        return mp.mpf(value.numerator) / value.denominator
    if kind == "const":
        if node[1] == "oo" or (real and node[1] == "i"):
            raise Unreal
        return {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}[node[1]] + 0
    if kind == "add":
        return mp.fsum(evaluate(part, point, real) for part in node[1:])
    if kind == "mul":
        return mp.fprod(evaluate(part, point, real) for part in node[1:])
    if kind == "pow":
        return _power_of(evaluate(node[1], point, real), node[2], point, real)
    if kind == "root":
        return _root(evaluate(node[2], point, real), node[1], real)
    if kind in ("sum", "prod"):
        return _loop(node, point, real)
    if kind == "fn":
        arguments = [evaluate(part, point, real) for part in node[2:]]
        if str(node[1]).startswith("of:"):
            return _opaque(node[1], arguments, point)
        return _function(node[1], arguments, real)
    raise Unreadable(f"{kind} has no value by itself")


def _opaque(name: str, arguments: list[Any], point: Mapping[str, Any]) -> Any:
    """A function that is only named: some smooth function of its arguments, its own for each name."""
    import mpmath as mp

    seed = mp.mpf(point[name].numerator) / point[name].denominator
    return mp.fsum(mp.cos(argument * (index + 1) + seed) for index, argument in enumerate(arguments, 1)) + seed


def _power_of(base: Any, exponent: Node, point: Mapping[str, Any], real: bool) -> Any:
    import mpmath as mp

    exact = rational(exponent)
    if exact is not None and exact.denominator == 1:
        if base == 0 and exact < 0:
            raise ZeroDivisionError
        return base ** int(exact)
    if exact is not None and exact.denominator % 2 and mp.im(base) == 0 and mp.re(base) < 0:
        root = -mp.root(-mp.re(base), exact.denominator)
        return root**exact.numerator
    value = evaluate(exponent, point, real)
    if real and base < 0 and value != int(value):
        raise Unreal
    if base == 0 and mp.re(value) < 0:
        raise ZeroDivisionError
    return mp.power(base, int(value)) if real and value == int(value) and abs(value) < 10**6 else mp.power(base, value)


def _root(value: Any, degree: int, real: bool) -> Any:
    import mpmath as mp

    if mp.im(value) == 0 and mp.re(value) < 0:
        if degree % 2:
            return -mp.root(-mp.re(value), degree)
        if real:
            raise Unreal
    return mp.root(value, degree)


def _loop(node: Node, point: Mapping[str, Any], real: bool) -> Any:
    import mpmath as mp

    low, high = (evaluate(part, point, real) for part in node[2:4])
    if low != int(low) or high != int(high) or high - low > 2000:
        raise Unreadable("a sum over too many terms, or from or to a fraction")
    terms = (evaluate(node[4], {**point, node[1]: Fraction(index)}, real) for index in range(int(low), int(high) + 1))
    return mp.fsum(terms) if node[0] == "sum" else mp.fprod(terms)


def _function(name: str, arguments: list[Any], real: bool) -> Any:
    import mpmath as mp

    value = arguments[0]
    inverse = name.startswith("arc")
    plain = {
        "ln": "log",
        "abs": "fabs",
        "sgn": "sign",
        "factorial": "factorial",
        "gamma": "gamma",
        "zeta": "zeta",
        "conj": "conj",
        "binomial": "binomial",
        "Re": "re",
        "Im": "im",
    }
    if name in ("floor", "ceil"):
        return (mp.floor if name == "floor" else mp.ceil)(value)
    if name in ("min", "max"):
        return (min if name == "min" else max)(arguments)
    if name == "mod":
        return value - arguments[1] * mp.floor(value / arguments[1])
    if name == "cis":
        if real:
            raise Unreal
        return mp.expj(value)
    if name == "permutations":
        return mp.factorial(value) / mp.factorial(value - arguments[1])
    called = plain.get(name, ("a" + name[3:]) if inverse else name)
    function = getattr(mp, called, None)
    if function is None:
        raise Unreadable(f"{name} cannot be evaluated")
    if name == "ln" and (value == 0 or (real and value < 0)):
        raise Unreal
    try:
        found = function(*arguments)
    except ValueError:
        raise Unreal from None
    if real and mp.im(found) != 0:
        raise Unreal
    return mp.re(found) if real else found
