"""Whether two expressions are the same, by their values: exactly where they are rational, else to as many digits as could tell them apart.

Values that differ at one point settle it. Values that agree at every point tried, to more digits than the integers and
exponents in the expressions have, are taken for equal; anything in between is undecided.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from qup.answers.reading.vocabulary import Node
from qup.answers.sameness.exact import rational
from qup.answers.sameness.inspection import calculus, has, has_function, height, integral_names, names, rooted, singular
from qup.answers.sameness.numeric import Unreal, evaluate

DIGITS, MARGIN, MOST_DIGITS = 30, 50, 6000


POINTS, ENOUGH = 12, 3


_INTEGER_NAMES = frozenset("nkmNjpq")


def same_value(left: Node, right: Node) -> bool | None:
    """Whether two expressions have the same value for all values of their names; None where that is not certain."""
    if left == right:
        return None if singular(left) else True
    exact = rational(left), rational(right)
    if exact[0] is not None and exact[1] is not None:
        return exact[0] == exact[1]
    if calculus(left) or calculus(right):
        from qup.answers.sameness.calculus import same_by_calculus

        return same_by_calculus(left, right)
    if has(left, "oo") or has(right, "oo"):
        return _infinite(left, right)
    return _same_numerically(left, right)


def _infinite(left: Node, right: Node) -> bool | None:
    """Infinite as a whole: by sign. Within an expression: undecided."""
    signs = [
        {("const", "oo"): 1, ("mul", ("num", Fraction(-1)), ("const", "oo")): -1}.get(node, None if has(node, "oo") else 0)
        for node in (left, right)
    ]
    return None if None in signs else signs[0] == signs[1]


def _same_numerically(left: Node, right: Node) -> bool | None:
    free = sorted(names(left) | names(right))
    whole = integral_names(left) | integral_names(right)
    imaginary = any(has(node, "i") or has_function(node, "cis") for node in (left, right))
    digits = MARGIN + 2 * int(height(left) + height(right))
    for real, integral in ((not imaginary, False), (False, False)) if not imaginary else ((False, False),):
        verdict, tried = _at_points(left, right, free, whole, real, digits, integral)
        if real and not tried and _INTEGER_NAMES & set(free):
            verdict, tried = _at_points(left, right, free, whole | (_INTEGER_NAMES & set(free)), real, digits, True)
        if tried:
            return verdict
    return None


def _at_points(
    left: Node, right: Node, free: list[str], whole: set[str], real: bool, digits: int, integral: bool
) -> tuple[bool | None, int]:
    """The verdict over some points, and how many of them gave values on both sides."""
    rng = random.Random(20261126)
    agreed = 0
    for index in range(POINTS if free else 1):
        small, large = ((0.2, 0.95), (1.1, 3.0), (4.0, 11.0))[index % 3]
        point: dict[str, Fraction] = {}
        for position, name in enumerate(free):
            value = Fraction(int(10**9 * rng.uniform(small, large)) * 2 + 1, 2 * 10**9 + 1)
            sign = -1 if index >= POINTS // 2 and rng.random() < 0.5 and not name.startswith("ln of") else 1
            point[name] = Fraction(2 + (index + position * 2) % 7) if name in whole else sign * value
        try:
            verdict = _agree(left, right, point, real, digits)
        except (Unreal, ZeroDivisionError):
            continue
        if verdict is not True:
            mixed = agreed >= ENOUGH and index >= POINTS // 2 and rooted(left) | rooted(right)
            return (None if mixed else verdict), agreed + 1
        agreed += 1
    enough = 1 if not free else ENOUGH
    return (True, agreed) if agreed >= enough else (None, agreed)


def _agree(left: Node, right: Node, point: Mapping[str, Fraction], real: bool, digits: int) -> bool | None:
    """Whether both have the same value at a point: three precisions, so that rounding is not taken for a difference."""
    gaps = []
    for places in (DIGITS, 2 * DIGITS):
        gaps.append(_gap(left, right, point, real, places))
    if _settled(*gaps):
        return False
    if digits > MOST_DIGITS:
        return None
    far, farther = _gap(left, right, point, real, digits + DIGITS), _gap(left, right, point, real, digits + 2 * DIGITS)
    if _settled(far, farther):
        return False
    return True if farther[0] <= farther[1] * _power(-digits) else None


def _settled(first: tuple[Any, Any], second: tuple[Any, Any]) -> bool:
    """Whether a gap stays the same at a greater precision: then it is real."""
    gap, better = first[0], second[0]
    return bool(better != 0 and abs(gap - better) < abs(better) / 1000)


def _power(exponent: int) -> Any:
    import mpmath

    return mpmath.mpf(10) ** exponent


def _gap(left: Node, right: Node, point: Mapping[str, Fraction], real: bool, digits: int) -> tuple[Any, Any]:
    """How far apart the two values are at a point, and how large they are."""
    import mpmath

    with mpmath.workdps(digits + 10):
        values = [evaluate(node, point, real) for node in (left, right)]
        for value in values:
            if not mpmath.isfinite(value):
                raise ZeroDivisionError
        size = max(abs(value) for value in values)
        return abs(values[0] - values[1]), size if size > 0 else mpmath.mpf(1)
