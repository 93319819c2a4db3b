"""Number tokens: decimals, powers of ten, mixed numbers, repeating decimals, exactly."""

from __future__ import annotations

from fractions import Fraction

from qup.answers.reading.tokens import Group, Item, Unreadable, literal
from qup.answers.reading.vocabulary import Node

_LONGEST_EXPONENT = 400


def number(text: str) -> Fraction:
    """The exact value of a number token."""
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > _LONGEST_EXPONENT:
        raise Unreadable(f"the exponent of {text} is too large")
    if exponent and "." not in mantissa and mantissa != "1" and exponent[0] in "+-" and len(exponent) == 2:
        raise Unreadable(f"{text} may be a power of ten or {mantissa} times e")
    return Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0)


def is_fraction(node: Node) -> bool:
    """\\frac{a}{b} of two plain integers."""
    return node[0] == "mul" and len(node) == 3 and node[1][0] == "num" and node[2][0] == "pow" and node[2][1][0] == "num"


def mixed_number(whole: Node, part: Node, item: Item) -> Node:
    top, bottom = part[1][1], part[2][1][1]
    if not (0 < top < bottom and whole[1].denominator == 1):
        raise Unreadable(f"{whole[1]} beside {top}/{bottom} is no mixed number, and may be a product")
    return ("num", whole[1] + top / bottom)


def repeated(head: str, period: Item) -> Node:
    digits = literal(period.items if isinstance(period, Group) else (period,))
    if not digits.isdigit():
        raise Unreadable("a repeating decimal without a period")
    whole, _, fixed = head.partition(".")
    repeating = Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** len(fixed))
    return ("num", Fraction(int((whole or "0") + fixed), 10 ** len(fixed)) + repeating)
