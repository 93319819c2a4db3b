"""Reads sums, products, integrals and limits: the operators that bind a variable."""

from __future__ import annotations

from fractions import Fraction

from qup.answers.reading.cursor import Cursor
from qup.answers.reading.tokens import Group, Item, Token, Unreadable, is_sign, split
from qup.answers.reading.vocabulary import Node


def read_operator(name: str, reader: Cursor) -> Node:
    """What follows \\sum, \\prod, \\int or \\lim. Raises Unreadable where its bounds or its body are not plain."""
    low: tuple[Item, ...] | None = None
    high: Node | None = None
    while is_sign(reader.peek(), "_", "^"):
        if is_sign(reader.take(), "_"):
            item = reader.take()
            low = item.items if isinstance(item, Group) else (item,)
        else:
            high = reader.argument(script=True)
    if name == "int":
        body, variable = _until_differential(reader)
        if (low is None) != (high is None):
            raise Unreadable("an integral with one bound")
        return ("int", variable, reader.whole(low) if low is not None else None, high, reader.whole(body))
    if low is None:
        raise Unreadable(f"\\{name} without a variable")
    parts = split(low, "\\to", "\\rightarrow") if name == "lim" else split(low, "=")
    if len(parts) != 2 or len(parts[0]) != 1 or not isinstance(parts[0][0], Token) or (name != "lim" and high is None):
        raise Unreadable(f"\\{name} without bounds")
    point = reader.whole(parts[1])
    body_node = reader.product()
    if parts[0][0].text == "i":
        body_node = _indexed(body_node)
    if name == "lim":
        return ("lim", parts[0][0].text, point, body_node)
    assert high is not None
    return (name, parts[0][0].text, point, high, body_node)


def _until_differential(reader: Cursor) -> tuple[tuple[Item, ...], str]:
    """The items before dx, and x."""
    body: list[Item] = []
    while reader.rest:
        item = reader.take()
        if isinstance(item, Token) and item.kind == "text" and item.text == "d":
            return tuple(body), _variable(reader)
        if isinstance(item, Token) and item.kind == "word" and item.text.endswith("d") and is_sign(reader.peek(), *_GREEK):
            return _with(body, item.text[:-1]), _variable(reader)
        if isinstance(item, Token) and item.kind == "word" and len(item.text) > 1 and item.text[-2] == "d":
            return _with(body, item.text[:-2]), item.text[-1]
        if isinstance(item, Token) and item.kind == "word" and item.text == "d":
            return tuple(body), _variable(reader)
        body.append(item)
    raise Unreadable("an integral without its variable")


_GREEK = ("\\theta", "\\phi", "\\varphi", "\\tau", "\\rho", "\\omega", "\\lambda", "\\alpha", "\\beta", "\\xi")


def _variable(reader: Cursor) -> str:
    item = reader.take()
    if isinstance(item, Token) and (len(item.text) == 1 or item.text in _GREEK):
        return item.text
    raise Unreadable("an integral over something that is no variable")


def _with(body: list[Item], letters: str) -> tuple[Item, ...]:
    return (*body, *([Token("word", letters)] if letters else [])) or (Token("number", str(Fraction(1))),)


def _indexed(node: Node) -> Node:
    """The node with i as an index, not the imaginary unit."""
    if node == ("const", "i"):
        return ("sym", "i")
    return tuple(_indexed(part) if isinstance(part, tuple) else part for part in node)
