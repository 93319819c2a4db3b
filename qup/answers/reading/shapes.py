"""The shapes that answers have; docs/answers.md has a rule for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from qup.answers.reading.units import Unit
from qup.answers.reading.vocabulary import Node


@dataclass(frozen=True)
class Quantity:
    """An expression, with a unit or a percent sign where it has one; `places`: decimals, where it is a decimal as written."""

    node: Node
    unit: Unit | None = None
    percent: bool = False
    places: int | None = None
    modulus: Node | None = None
    """What it is a remainder of."""
    whole: Node | None = None
    """The same tokens read without any unit, where that too makes an expression."""


@dataclass(frozen=True)
class Based:
    """A numeral in a base: 1010_2."""

    numeral: str
    base: int


@dataclass(frozen=True)
class Text:
    """Words, or letters in an order that matters: a name, a choice, points."""

    words: str


@dataclass(frozen=True)
class Sequence:
    """Several answers. opening: "" (a list), "(", "[", "\\{" (a set), "\\langle"; two in round or square brackets may be an interval."""

    parts: tuple[Shape, ...]
    opening: str = ""
    closing: str = ""
    joint: str = ","
    """"or", "and", ";" or ",": what parts the entries of a list."""


@dataclass(frozen=True)
class Ratio:
    """a : b : c; `clock` where it may be a time of day instead."""

    parts: tuple[Node, ...]
    clock: bool


@dataclass(frozen=True)
class Matrix:
    """Entries by row."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Relation:
    """sides[0] signs[0] sides[1] …; signs are = < > <= >= != in ~ (approximately) == (congruent)."""

    sides: tuple[Shape, ...]
    signs: tuple[str, ...]
    names: tuple[str, ...] = ()
    """What the sides are as text."""


@dataclass(frozen=True)
class Sets:
    """Sets put together: sign is \\cup, \\cap or \\setminus."""

    sign: str
    parts: tuple[Shape, ...]


@dataclass(frozen=True)
class Known:
    """A set with a name: R, Z, Q, N, C or the empty set."""

    name: str


Shape: TypeAlias = Quantity | Based | Text | Sequence | Ratio | Matrix | Relation | Sets | Known
