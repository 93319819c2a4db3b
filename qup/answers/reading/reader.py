"""Reads a tidied answer as one of the shapes, by its outermost structure."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from qup.answers.reading.expressions import read_expression
from qup.answers.reading.normal import words
from qup.answers.reading.quantities import read_compound, read_quantity
from qup.answers.reading.shapes import Based, Known, Matrix, Quantity, Ratio, Relation, Sequence, Sets, Shape, Text
from qup.answers.reading.tokens import Group, Item, Token, Unreadable, is_sign, literal, split, tree
from qup.answers.reading.units import ORDINAL
from qup.answers.reading.vocabulary import Node
from qup.answers.reading.wording import spelled_number
from qup.answers.reading.wrappings import unwrapped

_RELATIONS = {
    "=": "=", ":=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=",
    "\\leqq": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\geqq": ">=", "\\lt": "<", "\\gt": ">", "\\ne": "!=", "\\neq": "!=",
    "\\in": "in", "\\approx": "~", "\\simeq": "~", "\\sim": "~", "\\doteq": "~", "\\equiv": "==", "\\cong": "==",
}  # fmt: skip


_SETS = ("\\cup", "\\cap", "\\setminus", "\\backslash")


_MATRICES = {f"\\begin{{{name}}}" for name in ("matrix", "pmatrix", "bmatrix", "array", "Bmatrix", "smallmatrix")}


_JOINTS = {"and": "and", "or": "or", "\\land": "and", "\\lor": "or", "\\wedge": "and", "\\vee": "or"}


_KNOWN = {"\\mathbb{R}": "R", "\\mathbb{Z}": "Z", "\\mathbb{Q}": "Q", "\\mathbb{N}": "N", "\\mathbb{C}": "C", "\\emptyset": "empty",
          "\\varnothing": "empty", "\\R": "R", "\\Z": "Z", "\\{\\}": "empty", "\\mathbf{R}": "R", "\\Reals": "R"}  # fmt: skip


_CLOCK = re.compile(r"([01]?[0-9]|2[0-4]):[0-5][0-9](:[0-5][0-9])?")


_NUMERAL = re.compile(r"(?P<numeral>[0-9A-Za-z]+)_(?:\{(?P<base>[0-9]{1,2})\}|(?P<digits>[0-9]{1,2}))")


_CHOICE = re.compile(r"\(?([A-Z])\)?[.:)]?")


_DEEPEST = 8


_CHOSEN = re.compile(
    r"\(?([A-Z])\)(?: |\\)(?!_|\^).{1,200}|([A-Z])[.:] .{1,200}|(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ss]tatement):? ?\(?([A-Z])\)?"
    r"|([A-Z])\)"
)


_TIME = re.compile(r"(1[0-2]|0?[1-9])(?::([0-5][0-9]))? ?([apAP])\.? ?[mM]\.?")


_ORDINAL = re.compile(r"([0-9]{1,9}) ?\^? ?\{?(?:\\(?:text|mathrm|textrm) ?\{)?(?:st|nd|rd|th)\}{0,2}")


_FRENCH = re.compile(r"([\]\[])([^\[\]()]+[,;][^\[\]()]+)([\]\[])")


_ALL = re.compile(r"(?:the set of )?(?:all )?(?:the )?real(?: numbers?|s)?(?: [a-z])?|(?:the set of )?all reals")


_NOTHING = re.compile(r"(?:there (?:are|is) )?no (?:real )?(?:solutions?|roots?)(?: exists?)?|(?:the )?(?:empty|null) set")


def read(tidied: str) -> Shape:
    """The shape of a tidied answer. Raises Unreadable where none fits for certain."""
    text = unwrapped(tidied)
    text = (
        re.split(r"\\(?:Longr|R|r|longr)ightarrow|\\implies|\\therefore|\\iff|\\Leftrightarrow", text)[-1].strip()
        if "\\lim" not in text
        else text
    )
    text = re.sub(r"^(?:\\text ?\{ ?)?(?:[Tt]he )?(?:[Ff]inal )?[Aa]nswer(?: is|:)(?: ?\})? ?", "", text)
    if (value := spelled_number(text)) is not None:
        return value if isinstance(value, Quantity) else Quantity(("num", value[0]), percent=value[1])
    if choice := _CHOSEN.fullmatch(text):
        letter = next(filter(None, choice.groups()))
        return Quantity(("sym", letter))
    if (said := words(text)) is not None:
        if _NOTHING.fullmatch(said):
            return Known("empty")
        return Known("R") if _ALL.fullmatch(said) and said != "real" else Text(said)
    if clock := _TIME.fullmatch(re.sub(r" ?\\(?:text|mathrm) ?\{ ?([^{}]*)\}", r" \1", text)):
        return Text(f"{int(clock[1])}:{clock[2] or '00'} {clock[3].lower()}m")
    if ordinal := _ORDINAL.fullmatch(text):
        return Quantity(("num", Fraction(ordinal[1])), ORDINAL)
    if french := _FRENCH.fullmatch(text):
        text = f"{'(' if french[1] == ']' else '['}{french[2]}{')' if french[3] == '[' else ']'}"
    return _read(tree(text), 0)


def _read(items: tuple[Item, ...], depth: int) -> Shape:
    if depth > _DEEPEST:
        raise Unreadable("lists within lists within lists")
    if not items:
        raise Unreadable("an empty entry")
    if len(items) > 3 and (compound := read_compound(items)) is not None:
        return compound
    items, modulus = _modulus(items)
    if modulus is not None:
        return _congruent(_read(items, depth + 1), modulus)
    named = {
        literal(part[: next(i for i, item in enumerate(part) if _relation(item))])
        for part in split(items, ",", ";", "or", "and")
        if _signs(part)
    }
    levels = (
        ((";",), ("or",), ("and",), (",", "&", "\\\\"))
        if len(named) > 1 or _intervals(items)
        else ((";",), (",", "and", "or", "&", "\\\\"))
    )
    for level in levels:
        parts, joint = _parted(items, level)
        if len(parts) > 1:
            parts = [part for part in parts if part]
            if not parts:
                raise Unreadable("a list of nothing")
            return Sequence(tuple(_read(part, depth + 1) for part in parts), joint=joint) if len(parts) > 1 else _read(parts[0], depth + 1)
    condition = items[-1]
    if len(items) > 1 and isinstance(condition, Group) and condition.opening == "(" and _signs(condition.items) and _signs(items[:-1]):
        return Sequence((_read(items[:-1], depth + 1), _read(condition.items, depth + 1)))
    if signs := _signs(items):
        sides = _sides(items)
        if not all(sides):
            raise Unreadable("a relation without one of its sides")
        return Relation((_left(sides[0], depth), *[_read(side, depth + 1) for side in sides[1:]]), tuple(signs), tuple(map(literal, sides)))
    minus = next((i for i, item in enumerate(items) if i and is_sign(item, "-")), None)
    if minus and literal(items[:minus]) in _KNOWN and isinstance(items[-1], Group) and items[-1].opening == "\\{":
        items = (*items[:minus], Token("command", "\\setminus"), *items[minus + 1 :])
    for sign in _SETS:
        parts = split(items, sign)
        if len(parts) > 1:
            return Sets("\\setminus" if sign == "\\backslash" else sign, tuple(_read(part, depth + 1) for part in parts))
    return _single(items, depth)


def _left(items: tuple[Item, ...], depth: int) -> Shape:
    """The left side of a relation; as its text alone where it is no shape by itself, such as P(X = 2)."""
    try:
        return _read(items, depth + 1)
    except Unreadable:
        return Text(literal(items))


def _parted(items: tuple[Item, ...], level: tuple[str, ...]) -> tuple[list[tuple[Item, ...]], str]:
    """The items between separators of this level, and "or" or "and" where one of them is."""
    parts: list[list[Item]] = [[]]
    joint = level[0]
    for item in items:
        text = item.text.strip(" ,.").lower() if isinstance(item, Token) and item.kind in ("text", "word", "sign", "command") else ""
        text = _JOINTS.get(text, item.text if isinstance(item, Token) else "")
        if isinstance(item, Token) and (text in level) and (item.kind != "word" or text in ("and", "or")):
            parts.append([])
            joint = text if text in ("and", "or") else joint
        else:
            parts[-1].append(item)
    return [tuple(part) for part in parts], joint


def _intervals(items: tuple[Item, ...]) -> bool:
    """Whether they hold inequalities, where "and" and "or" say which set is meant."""
    return any(sign in ("<", ">", "<=", ">=", "!=") for sign in _signs(items))


def _modulus(items: tuple[Item, ...]) -> tuple[tuple[Item, ...], Node | None]:
    """The items before \\pmod n or (mod n), and n."""
    for position, item in enumerate(items):
        if position and is_sign(item, "\\pmod", "\\mod") and position + 1 < len(items):
            return items[:position], read_expression(items[position + 1 :])
        if position and isinstance(item, Group) and item.items and position == len(items) - 1:
            first = item.items[0]
            if isinstance(first, Token) and first.text in ("mod", "\\mod", "\\bmod"):
                return items[:position], read_expression(item.items[1:])
    return items, None


def _congruent(found: Shape, modulus: Node) -> Shape:
    if isinstance(found, Quantity) and found.unit is None:
        return replace(found, modulus=modulus)
    if isinstance(found, Relation) and isinstance(found.sides[-1], Quantity):
        return replace(found, sides=(*found.sides[:-1], replace(found.sides[-1], modulus=modulus)))
    raise Unreadable("a remainder of something that is no number")


def _relation(item: Item) -> str | None:
    return _RELATIONS.get(item.text) if isinstance(item, Token) and item.kind in ("sign", "command") else None


def _signs(items: tuple[Item, ...]) -> list[str]:
    return [sign for item in items if (sign := _relation(item))]


def _sides(items: tuple[Item, ...]) -> list[tuple[Item, ...]]:
    sides: list[list[Item]] = [[]]
    for item in items:
        if _relation(item):
            sides.append([])
        else:
            sides[-1].append(item)
    return [tuple(side) for side in sides]


def _single(items: tuple[Item, ...], depth: int) -> Shape:
    """One answer without separators, relations or set operations."""
    text = literal(items)
    if text in _KNOWN:
        return Known(_KNOWN[text])
    if numeral := _based(items):
        return numeral
    if (found := _sequence(items, depth)) is not None:
        return found
    if len(items) == 2 and isinstance(items[0], Token) and re.fullmatch("[ABDEHIJKL-OQ-Z]", items[0].text) and _is_point(items[1]):
        return Relation((Text(items[0].text), _read(items[1:], depth + 1)), ("=",), (items[0].text, literal(items[1:])))
    if (matrix := _matrix(items)) is not None:
        return matrix
    if (ratio := _ratio(items)) is not None:
        return ratio
    if re.fullmatch(r"(?:\\(?:triangle|square|odot))?[A-Z]{2,}'*|[A-Z]'*(?:[A-Z]'*)+", text) and not any(
        item.spaced for item in items[1 + (isinstance(items[0], Token) and items[0].kind == "command") :]
    ):
        return Text(text)
    if (choice := _CHOICE.fullmatch(text)) and (len(text) > 1 or isinstance(items[0], Token)):
        return Quantity(("sym", choice[1])) if choice[1] not in "ei" else Text(text)
    if len(items) == 1 and isinstance(items[0], Token) and items[0].kind == "text":
        return Text(words(items[0].text) or " ".join(items[0].text.split()))
    return read_quantity(items)


_BASES = {"two": 2, "three": 3, "eight": 8, "ten": 10, "sixteen": 16}


def _is_point(item: Item) -> bool:
    return isinstance(item, Group) and item.opening == "(" and "," in literal(item.items)


def _based(items: tuple[Item, ...]) -> Based | None:
    text = literal(items)
    text = re.sub(r"^\(([0-9A-Za-z]+)\)_", r"\1_", text)
    text = re.sub(r"_\{?(two|three|eight|ten|sixteen)\}?$", lambda m: f"_{{{_BASES[m[1]]}}}", text)
    match = _NUMERAL.fullmatch(text)
    if match is None or not (
        match["numeral"][0].isdigit() or ((match["base"] or match["digits"]) == "16" and re.search("[0-9]", match["numeral"]))
    ):
        return None
    base = int(match["base"] or match["digits"])
    try:
        if not 2 <= base <= 36:
            raise ValueError
        int(match["numeral"], base)
    except ValueError:
        raise Unreadable(f"{match['numeral']} is no numeral in base {base}") from None
    return Based(match["numeral"].lower().lstrip("0") or "0", base)


def _sequence(items: tuple[Item, ...], depth: int) -> Shape | None:
    """A bracket that holds the whole answer: a tuple, an interval, a set, or brackets around one answer."""
    if len(items) != 1 or not isinstance(items[0], Group):
        return None
    group = items[0]
    opening, closing = group.opening, group.closing
    if opening not in ("(", "[", "{", "\\{", "\\langle"):
        return None
    if opening == "\\{" and any(is_sign(item, "\\mid", "|", ":", "\\vert") for item in group.items):
        return _builder(group, depth)
    inner = _read(group.items, depth + 1)
    if opening == "{":
        return inner
    if isinstance(inner, Sequence) and not inner.opening and inner.joint in (",", ";", "and"):
        return Sequence(inner.parts, opening, closing)
    if opening == "(" and closing == ")":
        return inner
    if opening == "[" and closing == "]" and isinstance(inner, Quantity | Matrix):
        return inner
    return Sequence((inner,), opening, closing)


def _builder(group: Group, depth: int) -> Shape:
    """{x | condition}: the condition."""
    position = next(index for index, item in enumerate(group.items) if is_sign(item, "\\mid", "|", ":", "\\vert"))
    head, condition = group.items[:position], group.items[position + 1 :]
    over = [literal(side) for side in _sides(head)]
    if len(over) > 2 or (len(over) == 2 and over[1] not in ("\\mathbb{R}", "\\mathbf{R}")):
        raise Unreadable("a set over something other than the real numbers")
    found = _read(condition, depth + 1)
    if not (isinstance(found, Relation) and over[0] in found.names):
        raise Unreadable("a set whose condition is not about its variable")
    return found


def _matrix(items: tuple[Item, ...]) -> Matrix | None:
    position = next((i for i, item in enumerate(items) if isinstance(item, Group) and item.opening in _MATRICES), None)
    if position is None:
        return None
    group = items[position]
    assert isinstance(group, Group)
    inside = group.items
    if group.opening == "\\begin{array}" and inside and isinstance(inside[0], Group):
        inside = inside[1:]
    after = literal(items[position + 1 :])
    if after not in ("", "^T", "^{T}", "^\\top", "^{\\top}", "^{\\mathsf{T}}", "^t"):
        raise Unreadable("something after a matrix")
    rows = [[read_expression(entry) for entry in split(row, "&")] for row in split(inside, "\\\\") if row]
    if not rows or len({len(row) for row in rows}) != 1:
        raise Unreadable("a matrix whose rows are not of one length")
    if position:
        before = items[:position]
        while before and is_sign(before[-1], "\\cdot", "*", "\\times"):
            before = before[:-1]
        factor = ("num", Fraction(-1)) if len(before) == 1 and is_sign(before[0], "-") else read_expression(before)
        rows = [[("mul", factor, entry) for entry in row] for row in rows]
    return Matrix(tuple(zip(*rows)) if after else tuple(tuple(row) for row in rows))


def _ratio(items: tuple[Item, ...]) -> Ratio | None:
    items = tuple(
        Token("sign", ":") if isinstance(item, Token) and item.kind in ("text", "word") and item.text == "to" else item for item in items
    )
    items = tuple(Token("sign", ":") if is_sign(item, "\\colon", "\\ratio") else item for item in items)
    parts = split(items, ":")
    if len(parts) < 2:
        return None
    if not all(parts):
        raise Unreadable("a ratio without one of its terms")
    return Ratio(tuple(read_expression(part) for part in parts), _CLOCK.fullmatch(literal(items)) is not None)
