"""Reads names: a letter with its subscripts, primes, and what it is applied to, all of which tell it from others."""

from __future__ import annotations

import re
from fractions import Fraction

from qup.answers.reading.cursor import Cursor
from qup.answers.reading.tokens import Group, Item, Token, Unreadable, is_sign, literal, split
from qup.answers.reading.vocabulary import Node


def read_named(reader: Cursor, name: str) -> Node:
    """A name with its subscripts, primes and what it is applied to."""
    start = name
    while True:
        item = reader.peek()
        if is_sign(item, "_"):
            reader.take()
            script = reader.take()
            if start == "C" and (found := _combinations(reader, script)):
                return found
            name += "_" + script_of(script)
        elif isinstance(item, Token) and item.kind == "sign" and item.text.startswith("'"):
            reader.take()
            name += item.text
        elif is_sign(item, "^") and len(reader.rest) > 1 and primes(reader.rest[1]):
            reader.take()
            name += primes(reader.take())
        elif start in "fgFG" and is_sign(item, "^") and len(reader.rest) > 1 and literal((reader.rest[1],)) in ("{-1}", "{(-1)}"):
            reader.take(), reader.take()
            name += "^-1"
        else:
            break
    if re.fullmatch("y'+", name):
        name = f"y~x{len(name) - 1}"
    item = reader.peek()
    if isinstance(item, Group) and item.opening == "(" and _applies(start, name, item):
        reader.take()
        inside = item.items
        if re.fullmatch(r"y~x[0-9]", name) and literal(inside) == "x":
            return ("sym", name)
        if start in ("C", "P") and "," in literal(inside):
            return _choose(reader, start, inside)
        if start == "\\Gamma":
            return ("fn", "gamma", reader.whole(inside))
        if name == "\\zeta":
            return ("fn", "zeta", reader.whole(inside))
        return ("fn", f"of:{name}", *[reader.whole(part) for part in split(inside, ",")])
    return ("sym", name)


def _combinations(reader: Cursor, low: Item) -> Node | None:
    """C_{10}^3, where both are numbers."""
    if not (is_sign(reader.peek(), "^") and len(reader.rest) > 1 and re.fullmatch(r"\{?[0-9]+\}?", literal((low,)))):
        return None
    if not re.fullmatch(r"\{?[0-9]+\}?", literal((reader.rest[1],))):
        return None
    reader.take()
    values = [int(literal((part,)).strip("{}")) for part in (low, reader.take())]
    return ("fn", "binomial", ("num", Fraction(max(values))), ("num", Fraction(min(values))))


def script_of(item: Item) -> str:
    inside = item.items if isinstance(item, Group) and item.opening == "{" else (item,)
    while len(inside) == 1 and isinstance(inside[0], Group) and inside[0].opening == "{":
        inside = inside[0].items
    return re.sub(r"\\(?=(?:max|min|sup|inf|lim)\b)", "", literal(inside))


def subscript(reader: Cursor) -> str:
    if is_sign(reader.peek(), "_"):
        reader.take()
        return "_" + script_of(reader.take())
    return ""


def primes(item: Item) -> str:
    text = literal(item.items) if isinstance(item, Group) and item.opening == "{" else literal((item,))
    return "'" * (len(text) // len("\\prime")) if re.fullmatch(r"(\\prime)+", text) else text if re.fullmatch("'+", text) else ""


def _applies(start: str, name: str, group: Group) -> bool:
    """Whether a name before a bracket is a function of what the bracket holds, and not a factor."""
    inside = literal(group.items)
    if group.spaced and start not in "fgFG":
        return False
    if start in ("f", "g", "F", "G", "\\Gamma") or "'" in name:
        return True
    if "," in inside:
        return True
    return inside != start and re.fullmatch(r"[A-Za-z]|\\[a-z]+|-?[0-9]+", inside) is not None and inside not in ("e", "i", "\\pi")


def _choose(reader: Cursor, kind: str, inside: tuple[Item, ...]) -> Node:
    parts = [reader.whole(part) for part in split(inside, ",")]
    if len(parts) != 2:
        raise Unreadable("a count of combinations takes two numbers")
    return ("fn", "binomial" if kind == "C" else "permutations", *parts)
