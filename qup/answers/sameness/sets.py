"""Sets of real numbers: intervals, inequalities, unions. Compared by their end points, exactly where those are numbers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cmp_to_key
from typing import Any

from qup.answers.reading.shapes import Known, Quantity, Relation, Sequence, Sets, Shape
from qup.answers.reading.tokens import Unreadable
from qup.answers.reading.vocabulary import Node
from qup.answers.sameness.evaluation import same_value
from qup.answers.sameness.exact import rational
from qup.answers.sameness.inspection import names
from qup.answers.sameness.numeric import number_value

_ENDLESS = (("mul", ("num", Fraction(-1)), ("const", "oo")), ("const", "oo"))
Piece = tuple[Node, bool, Node, bool]
"""Lower end, whether it belongs to the set, upper end, whether it does."""


def same_sets(answer: Shape, gold: Shape, same: Callable[[Shape, Shape], bool | None]) -> bool | None:
    """Whether two shapes are the same set of real numbers; None where either is none for certain."""
    variables = {variable for shape in (answer, gold) if (variable := about(shape)) is not None}
    if len(variables) > 1:
        return False
    left, right = pieces(answer), pieces(gold)
    if left is None or right is None:
        return None
    return _equal(left, right)


def about(shape: Shape) -> str | None:
    """The name that inequalities are about; None where there is none."""
    if isinstance(shape, Relation):
        found = [side.node[1] for side in shape.sides if isinstance(side, Quantity) and side.node[0] == "sym"]
        if not found:
            found = list(set().union(*(names(side.node) for side in shape.sides if isinstance(side, Quantity))))
        return found[0] if len(found) == 1 else None
    if isinstance(shape, Sequence | Sets):
        inner = {about(part) for part in shape.parts} - {None}
        return inner.pop() if len(inner) == 1 else None
    return None


def pieces(shape: Shape) -> list[Piece] | None:
    """The set as intervals and points, in order and apart from each other; None where it is none for certain."""
    found = _pieces(shape)
    return None if found is None else _merged(found)


def _pieces(shape: Shape) -> list[Piece] | None:
    if isinstance(shape, Known):
        return [] if shape.name == "empty" else [(_ENDLESS[0], False, _ENDLESS[1], False)] if shape.name == "R" else None
    if isinstance(shape, Sequence):
        return _bracketed(shape)
    if isinstance(shape, Relation):
        return _inequality(shape)
    if isinstance(shape, Sets):
        parts = [_pieces(part) for part in shape.parts]
        if None in parts:
            return None
        known: list[list[Piece]] = [_merged(part) for part in parts if part is not None]
        if shape.sign == "\\cup":
            return [piece for part in known for piece in part]
        result = known[0]
        for part in known[1:]:
            result = _common(result, part if shape.sign == "\\cap" else _complement(part))
        return result
    return None


def _bracketed(shape: Sequence) -> list[Piece] | None:
    if shape.opening == "\\{":
        nodes = [part.node for part in shape.parts if isinstance(part, Quantity)]
        return [(node, True, node, True) for node in nodes] if len(nodes) == len(shape.parts) else None
    if shape.opening == "" and any(isinstance(part, Relation) for part in shape.parts):
        if about(shape) is None:
            return None
        parts = [_pieces(part) for part in shape.parts]
        if None in parts:
            return None
        known = [_merged(part) for part in parts if part is not None]
        if shape.joint == "and":
            result = known[0]
            for part in known[1:]:
                result = _common(result, part)
            return result
        if shape.joint == "or":
            return [piece for part in known for piece in part]
        if all(not _common(left, right) for i, left in enumerate(known) for right in known[i + 1 :]):
            return [piece for part in known for piece in part]
        return None
    if shape.opening == "" and shape.joint in ("or", "and", ",") and all(isinstance(part, Sequence | Sets) for part in shape.parts):
        return None
    if shape.opening in ("(", "[") and len(shape.parts) == 2:
        low, high = shape.parts
        if isinstance(low, Quantity) and isinstance(high, Quantity) and not low.percent and not high.percent:
            return [(low.node, shape.opening == "[", high.node, shape.closing == "]")]
    return None


def _inequality(shape: Relation) -> list[Piece] | None:
    """x < 3, 0 < x ≤ 2, x ≠ 1, x ∈ (0, 1]."""
    if shape.signs == ("in",):
        return _pieces(shape.sides[1])
    if not all(isinstance(side, Quantity) for side in shape.sides):
        return None
    nodes = [side.node for side in shape.sides if isinstance(side, Quantity)]
    if len(nodes) == 2 and (band := _band(nodes, shape.signs[0])) is not None:
        return band
    where = [index for index, node in enumerate(nodes) if node[0] == "sym"]
    if len(where) != 1:
        return None
    index, low, high = where[0], (_ENDLESS[0], False), (_ENDLESS[1], False)
    if any(nodes[index][1] in names(node) for position, node in enumerate(nodes) if position != index):
        return None
    if shape.signs == ("!=",):
        point = nodes[1 - index]
        return [(low[0], False, point, False), (point, False, high[0], False)]
    if shape.signs == ("=",):
        point = nodes[1 - index]
        return [(point, True, point, True)]
    if len(nodes) > 3 or (len(nodes) == 3 and index != 1):
        return None
    for position, sign in enumerate(shape.signs):
        node = nodes[position] if position < index else nodes[position + 1]
        above = (sign in ("<", "<=")) == (position >= index)
        if sign not in ("<", "<=", ">", ">="):
            return None
        if above:
            if high[0] != _ENDLESS[1]:
                return None
            high = (node, sign in ("<=", ">="))
        else:
            if low[0] != _ENDLESS[0]:
                return None
            low = (node, sign in ("<=", ">="))
    return [(low[0], low[1], high[0], high[1])]


def _band(nodes: list[Node], sign: str) -> list[Piece] | None:
    """|x - c| < a and its kind, as intervals; None for other relations."""
    if nodes[1][:2] == ("fn", "abs"):
        nodes, sign = nodes[::-1], {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(sign, sign)
    if nodes[0][:2] != ("fn", "abs") or sign not in ("<", "<=", ">", ">=") or (number_value(nodes[1]) or 0) <= 0:
        return None
    inner, width = nodes[0][2], nodes[1]
    center: Node = ("num", Fraction(0))
    if inner[0] == "add" and len(inner) == 3 and inner[1][0] == "sym" and number_value(inner[2]) is not None:
        inner, center = inner[1], ("mul", ("num", Fraction(-1)), inner[2])
    if inner[0] != "sym":
        return None
    low, high = ("add", center, ("mul", ("num", Fraction(-1)), width)), ("add", center, width)
    closed = sign in ("<=", ">=")
    if sign in ("<", "<="):
        return [(low, closed, high, closed)]
    return [(_ENDLESS[0], False, low, closed), (high, closed, _ENDLESS[1], False)]


def _place(node: Node) -> Any:
    """A sortable value of an end point, exact where it is rational; None where it has names."""
    if node in _ENDLESS:
        return float("-inf") if node == _ENDLESS[0] else float("inf")
    exact = rational(node)
    return exact if exact is not None else number_value(node)


def _order(left: Node, right: Node) -> int:
    """-1, 0 or 1. Raises Unreadable where that is not known."""
    if left == right:
        return 0
    first, second = _place(left), _place(right)
    if first is None or second is None:
        raise Unreadable("end points that cannot be put in order")
    if left not in _ENDLESS and right not in _ENDLESS:
        equal = same_value(left, right)
        if equal is None:
            raise Unreadable("end points that cannot be told apart")
        if equal:
            return 0
    import mpmath

    as_number = [
        mpmath.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else mpmath.mpf(value) for value in (first, second)
    ]
    if as_number[0] == as_number[1]:
        raise Unreadable("end points too close to be put in order")
    return -1 if as_number[0] < as_number[1] else 1


def _merged(parts: list[Piece]) -> list[Piece]:
    """The pieces in order, those that touch as one, empty ones left out."""
    if len(parts) < 2 and not any(_place(node) is not None for part in parts for node in (part[0], part[2])):
        return parts
    kept = [
        part
        for part in parts
        if _place(part[0]) is None or _place(part[2]) is None or _order(part[0], part[2]) < (1 if part[1] and part[3] else 0)
    ]
    if any(_place(node) is None for part in kept for node in (part[0], part[2])):
        return kept
    kept.sort(key=cmp_to_key(_first))
    result: list[Piece] = []
    for part in kept:
        if result:
            last = result[-1]
            gap = _order(part[0], last[2])
            if gap < 0 or (gap == 0 and (part[1] or last[3])):
                further = _order(part[2], last[2])
                end = (part[2], part[3]) if further > 0 else (last[2], last[3] or (further == 0 and part[3]))
                result[-1] = (last[0], last[1], *end)
                continue
        result.append(part)
    return result


def _first(left: Piece, right: Piece) -> int:
    return _order(left[0], right[0]) or int(right[1]) - int(left[1])


def _common(left: list[Piece], right: list[Piece]) -> list[Piece]:
    found = []
    for mine in left:
        for theirs in right:
            low_order, high_order = _order(mine[0], theirs[0]), _order(mine[2], theirs[2])
            low = (mine[0], mine[1] and theirs[1]) if low_order == 0 else (mine[0], mine[1]) if low_order > 0 else (theirs[0], theirs[1])
            high = (mine[2], mine[3] and theirs[3]) if high_order == 0 else (mine[2], mine[3]) if high_order < 0 else (theirs[2], theirs[3])
            order = _order(low[0], high[0])
            if order < 0 or (order == 0 and low[1] and high[1]):
                found.append((*low, *high))
    return _merged(found)


def _complement(parts: list[Piece]) -> list[Piece]:
    found, low, closed = [], _ENDLESS[0], False
    for part in parts:
        if part[0] != _ENDLESS[0]:
            found.append((low, closed, part[0], not part[1]))
        low, closed = part[2], not part[3]
    if low != _ENDLESS[1]:
        found.append((low, closed, _ENDLESS[1], False))
    return found


def _equal(left: list[Piece], right: list[Piece]) -> bool | None:
    if len(left) != len(right):
        return False
    uncertain = False
    for mine, theirs in zip(left, right):
        if (mine[1], mine[3]) != (theirs[1], theirs[3]):
            return False
        for one, other in ((mine[0], theirs[0]), (mine[2], theirs[2])):
            found = same_value(one, other)
            if found is False:
                return False
            uncertain |= found is None
    return None if uncertain else True


def ratio_of(mine: Node, theirs: Node) -> tuple[Node, str] | None:
    """The constant by which one expression is the other's multiple, judged at one point, and its sign; None where it is no plain number.

    It is a fraction of small numbers, or of numbers in the expressions' leading terms; the caller proves it.
    """
    import random

    import mpmath

    from qup.answers.sameness.numeric import Unreal, evaluate

    rng = random.Random(7)
    free = sorted(names(mine) | names(theirs))
    for _ in range(8):
        point = {name: Fraction(int(10**9 * rng.uniform(0.3, 3)) * 2 + 1, 2 * 10**9 + 1) for name in free}
        try:
            with mpmath.workdps(50):
                above, below = (evaluate(node, point, False) for node in (mine, theirs))
                if below == 0 or above == 0:
                    return None
                value = above / below
                if abs(mpmath.im(value)) > 1e-30:
                    return None
                found = _fraction(mpmath.re(value))
        except (Unreal, ZeroDivisionError):
            continue
        return None if found is None else (("num", found), "-" if found < 0 else "+")
    return None


def _fraction(value: Any) -> Fraction | None:
    """The fraction of at most ten digits above and below that a value of 50 digits is."""
    import mpmath

    sign, mantissa, exponent, _ = mpmath.mpf(value)._mpf_
    exact = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    found = exact.limit_denominator(10**10)
    return (-found if sign else found) if found and abs(found - exact) < Fraction(1, 10**30) * abs(exact) else None
