"""Reads functions with their power, base and argument. Where the argument ends is refused wherever it could be read in two ways."""

from __future__ import annotations

from fractions import Fraction

from qup.answers.reading.cursor import Cursor
from qup.answers.reading.numerals import number
from qup.answers.reading.tokens import Group, Item, Token, Unreadable, is_sign, split
from qup.answers.reading.vocabulary import ALIASES, DIVIDED, FUNCTIONS, INVERSE, TIMES, Node


def read_function(reader: Cursor, name: str) -> Node:
    """A function with its power, base and argument: sin^2 x, log_2 3, ln(x)."""
    power: Node | None = None
    base: Node | None = None
    if name == "log" and len(reader.rest) > 1 and isinstance(reader.rest[1], Group) and reader.rest[1].opening == "(":
        number_first = reader.rest[0]
        if isinstance(number_first, Token) and number_first.kind == "number" and not number_first.spaced:
            reader.take()
            base = ("num", number(number_first.text))
    while is_sign(reader.peek(), "^", "_"):
        if is_sign(reader.take(), "_"):
            if name != "log":
                raise Unreadable(f"a subscript to {name}")
            base = _base(reader)
        else:
            power = reader.argument(script=True)
            if power is None:
                raise Unreadable(f"a degree sign after {name}")
    if power == ("mul", ("num", Fraction(-1)), ("num", Fraction(1))) or power == ("num", Fraction(-1)):
        if name not in INVERSE:
            raise Unreadable(f"{name} to the power of -1")
        name, power = INVERSE[name], None
    arguments = _arguments(reader, name)
    if name == "lg":
        name, base = "log", ("num", Fraction(10))
    node: Node = ("fn", name, *arguments)
    if name == "log":
        below = ("fn", "ln", base) if base else ("sym", "ln of log's base")
        node = ("mul", ("fn", "ln", *arguments), ("pow", below, ("num", Fraction(-1))))
    if name == "exp":
        node = ("pow", ("const", "e"), arguments[0])
    return ("pow", node, power) if power else node


def _base(reader: Cursor) -> Node:
    item = reader.take()
    if isinstance(item, Token) and item.kind == "number" and len(item.text) > 1 and not _argument_follows(reader):
        reader.rest.insert(0, Token("number", item.text[1:], False))
        item = Token("number", item.text[0])
    reader.rest.insert(0, item)
    node = reader.argument(script=True)
    if node is None:
        raise Unreadable("a degree sign as a base")
    return node


def _argument_follows(reader: Cursor) -> bool:
    item = reader.peek()
    return item is not None and not (isinstance(item, Token) and item.kind == "sign" and item.text != "|")


def _arguments(reader: Cursor, name: str) -> list[Node]:
    item = reader.peek()
    if isinstance(item, Group) and item.opening + item.closing in ("()", "{}", "[]"):
        reader.take()
        parts = split(item.items, ",")
        if len(parts) > 1 and name not in ("gcd", "lcm", "max", "min"):
            raise Unreadable(f"{name} of several values")
        return [reader.whole(part) for part in parts]
    if is_sign(item, "-"):
        reader.take()
        return [("mul", ("num", Fraction(-1)), reader.factor())]
    factors = [reader.factor()]
    while (item := reader.peek()) is not None and not (isinstance(item, Token) and item.kind == "sign" and item.text != "|"):
        if (
            _is_function(item)
            or is_sign(item, *TIMES, *DIVIDED, "\\pm", "\\mp", "\\bmod")
            or (isinstance(item, Group) and item.opening == "(")
        ):
            break
        if isinstance(item, Token) and item.kind == "number":
            break
        factors.append(reader.factor())
    if is_sign(reader.peek(), *DIVIDED) and not (len(reader.rest) > 1 and _is_function(reader.rest[1])):
        raise Unreadable(f"what stands after the slash may belong to {name} or not")
    if is_sign(reader.peek(), *TIMES) and len(reader.rest) > 1 and not _is_function(reader.rest[1]):
        raise Unreadable(f"what stands after the sign of multiplication may belong to {name} or not")
    if isinstance(reader.peek(), Group) and factors[-1][0] in ("num", "const"):
        raise Unreadable(f"the bracket may belong to {name} or not")
    return [factors[0] if len(factors) == 1 else ("mul", *factors)]


def _is_function(item: Item) -> bool:
    return (
        isinstance(item, Token)
        and item.kind in ("command", "word", "text")
        and (ALIASES.get(item.text.lstrip("\\"), item.text.lstrip("\\")) in FUNCTIONS)
    )
