"""Lists, sets and tuples."""

from __future__ import annotations

from collections.abc import Sequence as Many

from qup.answers.reading.shapes import Known, Matrix, Quantity, Relation, Sequence, Sets, Shape, Text
from qup.answers.reading.tokens import Unreadable
from qup.answers.sameness.integers import of_integers, with_one_integer
from qup.answers.sameness.logic import NotMine, Same, Verdict, both, matched
from qup.answers.sameness.names import entries, named, record_of, without_index
from qup.answers.sameness.signs import choices, signs_of


def compare_sequences(answer: Shape, gold: Shape, same: Same) -> Verdict:
    """Lists and sets in any order; tuples, vectors and intervals in theirs."""
    called = named(answer), named(gold)
    if called[0] and called[1]:
        if called[0] != called[1] and not _one_indexed(*called):
            return None
        if called[0] == called[1] and len(called[0]) > 1:
            records = [record_of(as_list(side).parts) for side in (answer, gold)]
            if records[0] is not None and records[1] is not None:
                return both([same(value, records[1][name]) for name, value in records[0].items()])
    left, right = entries(answer), entries(gold)
    if not (isinstance(left, Sequence) or isinstance(right, Sequence)):
        raise NotMine
    if not (isinstance(left, Sequence) and isinstance(right, Sequence)):
        several, single = (left, right) if isinstance(left, Sequence) else (right, left)
        assert isinstance(several, Sequence)
        if isinstance(single, Relation | Sets | Known | Text | Matrix):
            raise NotMine
        if any(map(of_integers, several.parts)):
            return unordered(as_list(left), as_list(right), same)
        if several.opening in ("\\{", "") and len(several.parts) == 1:
            return same(several.parts[0], single)
        if several.opening in ("\\{", "") and isinstance(single, Quantity) and len(signs_of(single.node)) == 2:
            return unordered(several, Sequence((single,)), same)
        return False
    loose = ("", "\\{")
    left, right = (Sequence((side,)) if len(_spread((side,))) > 1 else side for side in (left, right))
    if left.opening in loose and right.opening in loose:
        return unordered(left, right, same)
    brackets = {left.opening + left.closing, right.opening + right.closing}
    if left.opening in loose or right.opening in loose:
        listed, tupled = (left, right) if left.opening in loose else (right, left)
        if listed.opening == "\\{" or (tupled.opening + tupled.closing not in ("()", "[]", "\\langle\\rangle")):
            raise NotMine
        if tupled.opening == "[" and len(tupled.parts) == 2:
            return None
        if tupled.opening == "(" and len(tupled.parts) == 2 and not named(answer) and not named(gold):
            return None
        found = _in_order(left, right, same)
        return None if found is False and unordered(Sequence(left.parts), Sequence(right.parts), same) else found
    if len(brackets) > 1 and brackets != {"()", "\\langle\\rangle"} and not (brackets == {"()", "[]"} and len(left.parts) > 2):
        return False if len(left.parts) == len(right.parts) == 2 and "\\langle\\rangle" not in brackets else None
    return _in_order(left, right, same)


def _one_indexed(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether one side has x alone and the other x_1, x_2 …"""
    plain, indexed = (left, right) if len(left) == 1 else (right, left)
    return len(plain) == 1 and len(indexed) > 1 and {without_index(name) for name in indexed} == set(plain)


def as_list(shape: Shape) -> Sequence:
    """The shape as a list, of itself alone where it is none."""
    return shape if isinstance(shape, Sequence) else Sequence((shape,))


def _in_order(left: Sequence, right: Sequence, same: Same) -> Verdict:
    if len(left.parts) != len(right.parts):
        return False
    return both([same(mine, theirs) for mine, theirs in zip(left.parts, right.parts)])


def unordered(left: Sequence, right: Sequence, same: Same) -> Verdict:
    left, right = with_one_integer(left, right)
    mine, theirs = _spread(left.parts), _spread(right.parts)
    if "\\{" in (left.opening, right.opening):
        mine, theirs = _distinct(mine, same), _distinct(theirs, same)
    return matched(mine, theirs, same)


def _spread(parts: Many[Shape]) -> list[Shape]:
    """The entries with each ± as two of them; conditions such as k ∈ Z are left to the entries they are about."""
    found: list[Shape] = []
    for part in parts:
        if isinstance(part, Quantity) and len(nodes := signs_of(part.node)) == 2:
            found += [Quantity(node, part.unit, part.percent) for node in nodes]
        elif isinstance(part, Sequence) and part.opening in ("(", "\\langle") and all(isinstance(entry, Quantity) for entry in part.parts):
            ways = choices([entry.node for entry in part.parts if isinstance(entry, Quantity)])
            if len(ways) > 2:
                raise Unreadable("several ± may be chosen together or not")
            found += [Sequence(tuple(map(Quantity, way)), part.opening, part.closing) for way in ways] if len(ways) > 1 else [part]
        else:
            found.append(part)
    return found


def _distinct(parts: list[Shape], same: Same) -> list[Shape]:
    kept: list[Shape] = []
    for part in parts:
        if not any(same(part, other) for other in kept):
            kept.append(part)
    return kept
