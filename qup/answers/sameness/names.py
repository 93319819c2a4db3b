"""What an equation says about a name: which name it gives a value, and which value."""

from __future__ import annotations

import re
from collections.abc import Sequence as Many

from qup.answers.reading.shapes import Quantity, Relation, Sequence, Shape

NAME = re.compile(r"(?:\\[A-Za-z]+ ?|[A-Za-z])(?:\{[A-Za-z]+\})?'*(?:_(?:\{[^{}]*\}|\w+))?'*")


_LABEL = re.compile(
    r"(?:\\angle|\\triangle|m\\angle|\\text\{[^{}]*\}|\\mathrm\{[^{}]*\})?(?:[A-Z]{1,4}|\\theta|\\alpha|\\beta)|\|[A-Z]+\||\\overline\{[A-Z]+\}|[A-Za-z]{3,}|(?:P|Pr|E|Var)\(.*\)"
)


SUM_OF_NAMES = re.compile(r"[a-z](?:_\{?\w+\}?)?(?:[+-]?[a-z](?:_\{?\w+\}?)?)*")


FUNCTION = re.compile(r"(?P<name>[A-Za-z]'*(?:\^\{?-1\}?)?(?:_\{?\w+\}?)?)\((?P<of>[A-Za-z](?:,[A-Za-z])*|-?[0-9]+)\)")


DERIVATIVE = re.compile(r"\\frac\{(?:d|\\partial).*\}\{(?:d|\\partial).*\}|\\d?dot\{?[A-Za-z]\}?|[A-Za-z]'+(?:\([a-z]\))?")


def entries(shape: Shape) -> Shape:
    """A list whose entries are values of one name, as the values; x = 2 is not touched outside lists."""
    if isinstance(shape, Relation) and shape.signs == ("in",) and isinstance(shape.sides[1], Sequence) and shape.sides[1].opening == "\\{":
        return shape.sides[1]
    if isinstance(shape, Sequence) and shape.opening in ("", "\\{"):
        if (solutions := solutions_of(shape)) is not None:
            return Sequence(tuple(solutions), shape.opening, shape.closing)
        if (records := _records(shape)) is not None:
            return records
    if isinstance(shape, Relation) and (record := record_of((shape,))) is not None:
        return Sequence(tuple(record[name] for name in record), "(", ")")
    if (
        isinstance(shape, Relation)
        and shape.signs == ("=",)
        and isinstance(shape.sides[1], Sequence)
        and labels(shape.names[0], shape.sides[1])
    ):
        return entries(shape.sides[1])
    return shape


def named(shape: Shape) -> tuple[str, ...]:
    """The names to which a shape gives values, in order; indices of one name's values left out."""
    if isinstance(shape, Relation) and shape.signs == ("=",):
        left = shape.sides[0]
        called = [part.node[1] for part in left.parts if isinstance(part, Quantity)] if isinstance(left, Sequence) else [shape.names[0]]
        return tuple(sorted(map(str, called)))
    if isinstance(shape, Sequence) and shape.opening in ("", "\\{"):
        inner = {named(part) for part in shape.parts} - {()}
        return tuple(sorted({name for names_of in inner for name in names_of}))
    return ()


def without_index(name: str) -> str:
    """x of x_1."""
    return re.sub(r"_(?:\{\d+\}|\d+)$", "", name)


def _assigned(shape: Shape) -> tuple[str, Shape] | None:
    """(name, value) of name = value."""
    if isinstance(shape, Relation) and shape.signs == ("=",) and NAME.fullmatch(shape.names[0]):
        return shape.names[0], shape.sides[1]
    return None


def solutions_of(shape: Sequence) -> list[Shape] | None:
    """The values of x = 2, x = 3; of x_1 = 2, x_2 = 3; and of x = 2, 3."""
    if not shape.parts or _assigned(shape.parts[0]) is None:
        first = shape.parts[0] if shape.parts else None
        tupled = isinstance(first, Relation) and first.signs == ("=",) and isinstance(first.sides[0], Sequence)
        if not tupled or any(isinstance(part, Relation) and part.names[0] != first.names[0] for part in shape.parts):  # type: ignore[union-attr]
            return None
        return [part.sides[1] if isinstance(part, Relation) else part for part in shape.parts]
    named = [_assigned(part) for part in shape.parts]
    known = [entry[0] for entry in named if entry]
    bases = {without_index(name) for name in known}
    one_name = len(set(known)) == 1
    if not one_name and not (len(bases) == 1 and len(known) == len(shape.parts)):
        return None
    if any(entry is None and not isinstance(part, Quantity | Sequence) for entry, part in zip(named, shape.parts)):
        return None
    return [entry[1] if entry else part for entry, part in zip(named, shape.parts)]


def record_of(parts: Many[Shape]) -> dict[str, Shape] | None:
    """Values by name, names in order, of x = 1, y = 2 and of (x, y) = (1, 2)."""
    if len(parts) == 1 and isinstance(only := parts[0], Relation) and only.signs == ("=",):
        names, values = only.sides
        if isinstance(names, Sequence) and isinstance(values, Sequence) and len(names.parts) == len(values.parts):
            called = [part.node[1] for part in names.parts if isinstance(part, Quantity) and part.node[0] == "sym"]
            if len(called) == len(values.parts) == len(set(called)):
                return dict(zip(called, values.parts))
        return None
    assigned = [_assigned(part) for part in parts]
    if None in assigned or len(assigned) < 2 or len({entry[0] for entry in assigned if entry}) != len(assigned):
        return None
    return dict(sorted((entry for entry in assigned if entry), key=lambda entry: entry[0]))


def _records(shape: Sequence) -> Sequence | None:
    """A tuple for x = 1, y = 2, by the names' order; a list of tuples for several of them parted by ; or or."""
    record = record_of(shape.parts)
    if record is not None:
        return Sequence(tuple(record.values()), "(", ")")
    several = [record_of(part.parts) if isinstance(part, Sequence) and not part.opening else None for part in shape.parts]
    if any(found is None for found in several) or len({tuple(found) for found in several if found}) != 1:
        return None
    return Sequence(tuple(Sequence(tuple(found.values()), "(", ")") for found in several if found))


def labels(name: str, value: Shape) -> bool:
    """Whether the left of an equation only says what its right side is."""
    return bool(NAME.fullmatch(name) or _LABEL.fullmatch(name) or FUNCTION.fullmatch(name) or DERIVATIVE.fullmatch(name))
