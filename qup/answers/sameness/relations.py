"""Equations and inequalities."""

from __future__ import annotations

import re
from fractions import Fraction

from qup.answers.reading.shapes import Quantity, Ratio, Relation, Sequence, Shape
from qup.answers.reading.vocabulary import Node
from qup.answers.sameness import sets
from qup.answers.sameness.exact import rational
from qup.answers.sameness.integers import of_integers
from qup.answers.sameness.logic import NotMine, Same, Verdict, both, either
from qup.answers.sameness.names import DERIVATIVE, FUNCTION, NAME, SUM_OF_NAMES, labels, record_of
from qup.answers.sameness.numeric import number_value
from qup.answers.sameness.quantities import nodes_same, values
from qup.answers.sameness.sequences import as_list, unordered


def compare_relations(answer: Shape, gold: Shape, same: Same) -> Verdict:
    """Equations and inequalities by what they say; against another shape, by the value that they give to a name."""
    if not (isinstance(answer, Relation) or isinstance(gold, Relation)):
        raise NotMine
    if isinstance(answer, Relation) and isinstance(gold, Relation):
        return _two_relations(answer, gold, same)
    if any(isinstance(side, Sequence) and not side.opening and any(map(of_integers, side.parts)) for side in (answer, gold)):
        return unordered(as_list(answer), as_list(gold), same)
    relation, other = (answer, gold) if isinstance(answer, Relation) else (gold, answer)
    assert isinstance(relation, Relation)
    from_answer = relation is answer
    if set(relation.signs) & {"<", ">", "<=", ">=", "!=", "in"}:
        if relation.signs == ("in",):
            return same(relation.sides[1], other)
        raise NotMine
    return _valued(relation, other, from_answer, same)


def _valued(relation: Relation, other: Shape, from_answer: bool, same: Same) -> Verdict:
    """A value against name = … = value, or value ≈ decimal: any of the sides that are values."""
    if "~" in relation.signs:
        last = relation.signs.index("~")
        side = relation.sides[last]
        constant = isinstance(side, Quantity) and number_value(side.node) is not None
        exact = [side] if constant or not labels(relation.names[last], other) else []
        return either([same(side, other) if from_answer else same(other, side) for side in (*exact, relation.sides[-1])])
    if relation.signs[-1] == "==":
        return same(relation.sides[-1], other)
    name, value = relation.names[0], relation.sides[-1]
    if not _dropped(relation, other, from_answer):
        ends = [side for side in (relation.sides[0], relation.sides[-1]) if isinstance(side, Quantity) and rational(side.node) is not None]
        if len(relation.sides) == 2 and len(ends) == 1 and relation.sides[0] is ends[0] and NAME.fullmatch(relation.names[-1]):
            return same(ends[0], other) if from_answer else same(other, ends[0])
        if all(isinstance(side, Quantity) and number_value(side.node) is not None for side in relation.sides):
            agree = both([same(side, relation.sides[0]) for side in relation.sides[1:]])
            return (same(value, other) if from_answer else same(other, value)) if agree else agree and None
        return None if name else False
    middle = relation.sides[1:]
    if len(middle) > 1 and both([same(side, middle[-1]) for side in middle[:-1]]) is False:
        return None
    return same(value, other) if from_answer else same(other, value)


def _dropped(relation: Relation, other: Shape, from_answer: bool) -> bool:
    """Whether the left side is a label that may be left out."""
    name, side = relation.names[0], relation.sides[0]
    if DERIVATIVE.fullmatch(name) and isinstance(relation.sides[-1], Quantity) and rational(relation.sides[-1].node) == 0:
        return False
    if labels(name, other):
        return True
    if isinstance(side, Ratio):
        return isinstance(relation.sides[-1], Ratio)
    value = relation.sides[-1]
    if not isinstance(value, Quantity) or not isinstance(side, Quantity) or rational(value.node) == 0:
        return False
    if number_value(value.node) is None:
        return False
    if SUM_OF_NAMES.fullmatch(name):
        return from_answer or not re.search("[xyz]", name)
    if isinstance(side.node, tuple) and side.node[0] == "fn" and not str(side.node[1]).startswith("of:"):
        return True
    quotient = re.fullmatch(r"\\frac\{([A-Za-z_0-9]+)\}\{([A-Za-z_0-9]+)\}|([A-Za-z]+)/([A-Za-z]+)", name)
    return quotient is not None and (from_answer or not re.search("[xyz]", name))


_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "~": "~", "==": "=="}


def _two_relations(answer: Relation, gold: Relation, same: Same) -> Verdict:
    if len(answer.sides) == len(gold.sides):
        if answer.signs == gold.signs and both([_exactly(left, right, same) for left, right in zip(answer.sides, gold.sides)]):
            return True
        flipped = tuple(_FLIPPED.get(sign, "") for sign in reversed(answer.signs))
        if flipped == gold.signs and both([_exactly(left, right, same) for left, right in zip(reversed(answer.sides), gold.sides)]):
            return True
    if set(answer.signs) | set(gold.signs) <= {"="}:
        return _two_equations(answer, gold, same)
    if set(answer.signs) | set(gold.signs) <= {"=", "~"}:
        if answer.names[0] == gold.names[0]:
            return either([same(left, right) for left in answer.sides[1:] for right in gold.sides[1:]])
        return None
    if "in" in answer.signs and "in" in gold.signs:
        return same(answer.sides[1], gold.sides[1]) if answer.names[0] == gold.names[0] else False
    raise NotMine


def _exactly(left: Shape, right: Shape, same: Same) -> Verdict:
    if isinstance(left, Quantity) and isinstance(right, Quantity) and left.unit is None and right.unit is None:
        return values(left, right)
    return same(left, right)


def _two_equations(answer: Relation, gold: Relation, same: Same) -> Verdict:
    """By proportion of left − right; y = … and f(x) = … by the right sides."""
    if len(answer.sides) > 2 or len(gold.sides) > 2:
        return same(answer.sides[-1], gold.sides[-1]) if answer.names[0] == gold.names[0] else None
    if answer.names[0] == gold.names[0] and labels(answer.names[0], gold):
        found = same(answer.sides[1], gold.sides[1])
        if found is not False:
            return found
    functions = [name for name in (answer.names[0], gold.names[0]) if FUNCTION.fullmatch(name)]
    if len(functions) == 1 and "y" in (answer.names[0], gold.names[0]):
        return same(answer.sides[1], gold.sides[1])
    sides = (*answer.sides, *gold.sides)
    if all(isinstance(side, Sequence) for side in sides):
        left, right = record_of((answer,)), record_of((gold,))
        if left is not None and right is not None and set(left) == set(right):
            return both([same(left[name], right[name]) for name in left])
    if not all(isinstance(side, Quantity) and side.unit is None and not side.percent for side in sides):
        if answer.names[0] == gold.names[0]:
            return same(answer.sides[1], gold.sides[1])
        return None
    mine, theirs = (_difference(relation) for relation in (answer, gold))
    return _proportional(mine, theirs)


def _difference(relation: Relation) -> Node:
    left, right = (side.node for side in relation.sides if isinstance(side, Quantity))
    return ("add", left, ("mul", ("num", Fraction(-1)), right))


def _proportional(mine: Node, theirs: Node, positive: bool = False) -> Verdict:
    """Whether two expressions are the same up to a constant other than 0."""
    factor = sets.ratio_of(mine, theirs)
    if factor is None or (positive and factor[1][0] == "-"):
        return None if factor is None else False
    return nodes_same(mine, ("mul", factor[0], theirs))
