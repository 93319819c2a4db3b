"""Reads a number or an expression with what stands around it: currency, percent, degrees, magnitude, unit."""

from __future__ import annotations

import re
from fractions import Fraction

from qup.answers.reading.expressions import read_expression
from qup.answers.reading.shapes import Quantity
from qup.answers.reading.tokens import Group, Item, Token, Unreadable, is_sign, literal
from qup.answers.reading.units import CURRENCIES, DEGREE, Unit, looks_plain, read_unit
from qup.answers.reading.vocabulary import FUNCTIONS

_DECIMAL = re.compile(r"-?[0-9]*\.([0-9]+)")


def read_quantity(items: tuple[Item, ...]) -> Quantity:
    """An expression with what stands around it: a currency sign, a percent sign, degrees, a unit, a magnitude."""
    percent, unit, bare = False, None, items
    if is_sign(bare[0], *CURRENCIES) or (len(bare) > 1 and is_sign(bare[0], "-", "+") and is_sign(bare[1], *CURRENCIES)):
        position = 0 if is_sign(bare[0], *CURRENCIES) else 1
        sign = bare[position]
        assert isinstance(sign, Token)
        unit = read_unit(CURRENCIES[sign.text], spaced=True, quoted=True)
        bare = bare[:position] + bare[position + 1 :]
    if (bare and is_sign(bare[-1], "%", "\\%")) or (
        bare and isinstance(bare[-1], Token) and bare[-1].text.strip() in ("percent", "percentage", "pct", "per cent")
    ):
        percent, bare = True, bare[:-1]
    if not bare:
        raise Unreadable("a sign without a number")
    if unit is None and not percent:
        bare, unit = _unit(bare)
    bare, factor = _magnitude(bare)
    node = read_expression(bare)
    if factor != 1:
        node = ("mul", ("num", factor), node)
    decimal = _DECIMAL.fullmatch(literal(bare))
    whole = None
    if unit is not None or percent:
        try:
            whole = read_expression(items)
        except Unreadable:
            whole = None
    return Quantity(node, unit, percent, len(decimal[1]) if decimal else None, None, whole)


_LONGEST_UNIT = 24
"""Tokens."""
_MAGNITUDES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}


def _magnitude(items: tuple[Item, ...]) -> tuple[tuple[Item, ...], Fraction]:
    """2.5 million: the number, and a million."""
    factor = 1
    while (
        len(items) > 1
        and isinstance(items[-1], Token)
        and items[-1].kind in ("word", "text")
        and items[-1].text.lower().rstrip("s") in _MAGNITUDES
    ):
        factor *= _MAGNITUDES[items[-1].text.lower().rstrip("s")]
        items = items[:-1]
    return items, Fraction(factor)


def _unit(items: tuple[Item, ...]) -> tuple[tuple[Item, ...], Unit | None]:
    """The items before a unit at the end, and the unit; all of them and None where there is none."""
    applied = any(isinstance(item, Token) and item.text.lstrip("\\") in FUNCTIONS for item in items)
    if len(items) > 2 and not applied and is_sign(items[-2], "^") and literal((items[-1],)) in ("\\circ", "{\\circ}"):
        return items[:-2], DEGREE
    if len(items) > 1 and not applied and is_sign(items[-1], "\\degree", "\\degrees"):
        return items[:-1], DEGREE
    for start in range(max(1, len(items) - _LONGEST_UNIT), len(items)):
        unit = _unit_from(items, start)
        if unit is not None:
            return items[:start], unit
    return items, None


def _unit_from(items: tuple[Item, ...], start: int) -> Unit | None:
    """The unit that everything from `start` on names."""
    first, before = items[start], items[start - 1]
    if isinstance(before, Token) and (
        before.kind in ("sign", "word", "text") or is_sign(before, "\\cdot", "\\times", "\\div", "\\frac", "\\sqrt")
    ):
        return None
    tail = items[start:]
    degrees = literal(tail[:2])
    temperature = re.fullmatch(r"\^\{?\\circ\}?\{?([CF])\}?|\^\{\\circ\{?([CF])\}?\}", literal(tail))
    if temperature:
        return read_unit(f"\\deg{temperature[1] or temperature[2]}", spaced=True, quoted=True)
    if degrees in ("^\\circ", "^{\\circ}"):
        return None
    if isinstance(first, Group) or first.kind not in ("text", "word", "command"):
        return None
    if first.kind == "command" and first.text not in ("\\Omega", "\\mu", "\\%"):
        return None
    quoted = all(not isinstance(item, Token) or item.kind != "word" for item in tail)
    pieces = []
    for item in tail:
        if isinstance(item, Token) and item.kind in ("text", "word"):
            pieces.append((" " if item.spaced or item.kind == "text" else "") + item.text.replace("~", " "))
            joins = len(pieces) > 1 and item.text in ("per", "a", "an", "the")
            if item.kind == "word" and len(item.text) > 1 and not joins and not looks_plain(item.text, item.spaced):
                return None
        elif isinstance(item, Token) and item.kind == "sign" and item.text not in ("/", "^", "*", "."):
            return None
        else:
            pieces.append("" if is_sign(item, ".") else literal((item,)))
    squared = len(tail) == 3 and is_sign(tail[1], "^") and isinstance(first, Token) and first.text == "m"
    power_of_ten = start > 2 and is_sign(items[start - 2], "^")
    spaced = (first.spaced or squared) and ((isinstance(before, Token) and before.kind == "number") or power_of_ten)
    return read_unit("".join(pieces).strip(), spaced=spaced, quoted=quoted)


def read_compound(items: tuple[Item, ...]) -> Quantity | None:
    """5 ft 3 in, 2 hours 30 minutes, 30° 15': one unit for the sum."""
    minutes = re.fullmatch(
        r"([0-9]+(?:\.[0-9]+)?)\^\{?\\circ\}?([0-9]+(?:\.[0-9]+)?)(?:'|\^\{?\\prime\}?)(?:([0-9.]+)(?:''|\^\{?\\prime\\prime\}?))?",
        literal(items),
    )
    if minutes:
        value = Fraction(minutes[1]) + Fraction(minutes[2]) / 60 + Fraction(minutes[3] or 0) / 3600
        return Quantity(("num", value), DEGREE)
    starts = [index for index, item in enumerate(items) if isinstance(item, Token) and item.kind == "number"]
    if len(starts) < 2 or starts[0] != 0 or any(isinstance(item, Group) for item in items):
        return None
    total, smallest, last = Fraction(0), None, None
    for start, end in zip(starts, [*starts[1:], len(items)]):
        part = items[start:end]
        joined = part and isinstance(part[-1], Token) and part[-1].text in ("and", ",")
        part = part[:-1] if joined else part
        rest, unit = _unit(part)
        if (
            unit is None
            or unit.size is None
            or len(rest) != 1
            or (last is not None and (unit.dimension != last.dimension or unit.size >= (last.size or 0)))
        ):
            return None
        if joined and unit.dimension not in ((("s", 1),), (("dollar", 1),)):
            return None
        number = rest[0]
        assert isinstance(number, Token)
        total, smallest, last = total + Fraction(number.text.rstrip(".")) * unit.size, unit, unit
    assert smallest is not None and smallest.size is not None
    return Quantity(("num", total / smallest.size), smallest)
