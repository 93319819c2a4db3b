"""± and ∓ in expressions: one expression stands for two."""

from __future__ import annotations

import itertools
from fractions import Fraction

from qup.answers.reading.tokens import Unreadable
from qup.answers.reading.vocabulary import Node


def signs_of(node: Node) -> list[Node]:
    """The node with its ± resolved: one reading, or two. Raises Unreadable for several ± that may be chosen independently."""
    count = _count(node, "pm")
    if not count and not _count(node, "mp"):
        return [node]
    if count > 1:
        raise Unreadable("several ± may be chosen together or not")
    return [_resolve(node, sign) for sign in (1, -1)]


def _count(node: Node, kind: str) -> int:
    return (node[0] == kind) + sum(_count(part, kind) for part in node[1:] if isinstance(part, tuple))


def _resolve(node: Node, sign: int) -> Node:
    if node[0] in ("pm", "mp"):
        inner = _resolve(node[1], sign)
        return inner if (sign == 1) == (node[0] == "pm") else ("mul", ("num", Fraction(-1)), inner)
    return tuple(_resolve(part, sign) if isinstance(part, tuple) else part for part in node)


def choices(nodes: list[Node]) -> list[tuple[Node, ...]]:
    """All ways to resolve ± in several nodes, each node by itself."""
    return list(itertools.product(*(signs_of(node) for node in nodes)))
