"""Families of answers over the integers: k ∈ Z may be left out, and the integer's name is free."""

from __future__ import annotations

from dataclasses import replace

from qup.answers.reading.shapes import Known, Quantity, Relation, Sequence, Shape
from qup.answers.reading.vocabulary import Node
from qup.answers.sameness.inspection import names
from qup.answers.sameness.names import NAME

_INTEGERS = {"n", "k", "m"}


def of_integers(shape: Shape) -> str | None:
    """The name that a condition such as k ∈ Z is about."""
    if (
        isinstance(shape, Relation)
        and shape.signs == ("in",)
        and shape.sides[1] in (Known("Z"), Known("N"))
        and NAME.fullmatch(shape.names[0])
    ):
        return shape.names[0] + str(shape.sides[1])
    return None


def with_one_integer(left: Sequence, right: Sequence) -> tuple[Sequence, Sequence]:
    """Both lists without their conditions k ∈ Z, the name of the integer made one. A condition that only one names is taken as understood."""
    conditions = [[part for part in side.parts if of_integers(part)] for side in (left, right)]
    if not any(conditions) or any(len(found) > 1 for found in conditions):
        return left, right
    sets_of = {part.sides[1] for found in conditions for part in found if isinstance(part, Relation)}
    if len(sets_of) > 1:
        return left, right
    result = []
    for side, found in zip((left, right), conditions):
        parts = [part for part in side.parts if part not in found]
        free = set().union(*(_free(part) for part in parts))
        called = {part.names[0] for part in found if isinstance(part, Relation)} or free & _INTEGERS
        if len(called) != 1 or not called <= free:
            return left, right
        result.append(Sequence(tuple(_renamed(part, called.pop()) for part in parts), side.opening, side.closing))
    return result[0], result[1]


def _free(shape: Shape) -> set[str]:
    if isinstance(shape, Quantity):
        return names(shape.node)
    return set().union(*(_free(side) for side in shape.sides)) if isinstance(shape, Relation) else set()


def _renamed(shape: Shape, name: str) -> Shape:
    def change(node: Node) -> Node:
        if node == ("sym", name):
            return ("sym", "some integer")
        return tuple(change(part) if isinstance(part, tuple) else part for part in node)

    if isinstance(shape, Quantity):
        return replace(shape, node=change(shape.node), whole=None)
    return replace(shape, sides=tuple(_renamed(side, name) for side in shape.sides)) if isinstance(shape, Relation) else shape
