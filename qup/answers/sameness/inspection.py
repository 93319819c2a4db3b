"""What an expression holds: names, constants, functions, roots, the size of its numbers."""

from __future__ import annotations

import math

from qup.answers.reading.vocabulary import Node
from qup.answers.sameness.exact import rational


def singular(node: Node) -> bool:
    """Whether it is nothing at all, such as x/0."""
    if node[0] == "pow" and rational(node[1]) == 0 and (value := rational(node[2])) is not None and value < 0:
        return True
    return any(singular(part) for part in node[1:] if isinstance(part, tuple))


def calculus(node: Node) -> bool:
    """Whether it holds an integral, a limit or an infinite sum."""
    return (
        node[0] in ("int", "lim")
        or (node[0] in ("sum", "prod") and has(node, "oo"))
        or any(calculus(part) for part in node[1:] if isinstance(part, tuple))
    )


def has(node: Node, constant: str) -> bool:
    return node == ("const", constant) or any(has(part, constant) for part in node[1:] if isinstance(part, tuple))


def has_function(node: Node, name: str) -> bool:
    return (node[0] == "fn" and node[1] == name) or any(has_function(part, name) for part in node[1:] if isinstance(part, tuple))


def names(node: Node, bound: frozenset[str] = frozenset()) -> set[str]:
    """The free names of an expression; an applied function is a name together with its arguments."""
    if node[0] == "sym":
        return set() if node[1] in bound else {node[1]}
    if node[0] in ("sum", "prod", "int", "lim"):
        inside = bound | {node[1]}
        return set().union(*(names(part, inside if part is node[-1] else bound) for part in node[2:] if isinstance(part, tuple)))
    found = set().union(*(names(part, bound) for part in node[1:] if isinstance(part, tuple)), set())
    return found | ({node[1]} if node[0] == "fn" and str(node[1]).startswith("of:") else set())


def integral_names(node: Node) -> set[str]:
    """Names that have to be whole numbers: the bounds of sums."""
    if node[0] in ("sum", "prod"):
        return names(node[2]) | names(node[3]) | integral_names(node[4])
    return set().union(*(integral_names(part) for part in node[1:] if isinstance(part, tuple)), set())


def rooted(node: Node) -> bool:
    """Whether it holds an even root: then two expressions may be the same for positive values alone."""
    if node[0] == "root" and node[1] % 2 == 0:
        return True
    if node[0] == "pow" and (exponent := rational(node[2])) is not None and exponent.denominator % 2 == 0:
        return True
    return any(rooted(part) for part in node[1:] if isinstance(part, tuple))


def height(node: Node) -> float:
    """Decimal digits that the numbers in an expression could move a difference down by."""
    kind = node[0]
    if kind == "num":
        return math.log10(abs(node[1].numerator) + 1) + math.log10(node[1].denominator) + 1
    if kind in ("sum", "prod"):
        return 10 + 10 * height(node[4]) + height(node[2]) + height(node[3])
    inner = sum(height(part) for part in node[1:] if isinstance(part, tuple))
    if kind == "pow" or (kind == "fn" and node[1] in ("factorial", "gamma", "binomial")):
        size = abs(float(rational(node[-1]) or 1))
        return inner + size * (1 + (height(node[1]) if kind == "pow" else math.log10(size + 1)))
    return inner
