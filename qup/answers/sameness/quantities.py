"""Numbers, expressions, numerals, ratios and matrices."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from qup.answers.reading.shapes import Based, Matrix, Quantity, Ratio, Relation, Sequence, Shape, Text
from qup.answers.reading.units import DEGREE, RADIAN, same_unit
from qup.answers.reading.vocabulary import Node
from qup.answers.sameness.evaluation import same_value
from qup.answers.sameness.exact import rational
from qup.answers.sameness.logic import NotMine, Same, Verdict, both, matched
from qup.answers.sameness.numeric import number_value
from qup.answers.sameness.signs import signs_of


def nodes_same(answer: Node, gold: Node) -> Verdict:
    """Two expressions, ± resolved into two values."""
    left, right = signs_of(answer), signs_of(gold)
    if len(left) == len(right) == 1:
        return same_value(left[0], right[0])
    return matched(left, right, same_value)


def compare_quantities(answer: Shape, gold: Shape, same: Same) -> Verdict:
    if not (isinstance(answer, Quantity) and isinstance(gold, Quantity)):
        raise NotMine
    if answer.modulus is not None and gold.modulus is not None:
        return _congruent(answer, gold)
    if answer.percent or gold.percent:
        return _percentages(answer, gold)
    unit_may_be_a_name = (answer.unit is None) != (gold.unit is None) and (rational(answer.node) is None or rational(gold.node) is None)
    if unit_may_be_a_name and nodes_same(answer.whole or answer.node, gold.whole or gold.node):
        return True
    answer, gold = (replace(side, unit=None) if side.unit and side.unit.dimension == RADIAN.dimension else side for side in (answer, gold))
    if (answer.unit == DEGREE and gold.unit is None) or (gold.unit == DEGREE and answer.unit is None):
        degrees, other = (answer, gold) if answer.unit == DEGREE else (gold, answer)
        plain = values(Quantity(degrees.node, None, False, degrees.places), other)
        if plain or rational(other.node) is not None:
            return plain
        return values(Quantity(("mul", degrees.node, ("const", "pi"), ("num", Fraction(1, 180)))), other)
    factor = same_unit(answer.unit, gold.unit)
    if factor is None:
        known = answer.unit and gold.unit and answer.unit.known and gold.unit.known
        return False if known else None
    if factor != 1:
        answer = Quantity(("mul", ("num", factor), answer.node))
    return values(answer, gold)


def _congruent(answer: Quantity, gold: Quantity) -> Verdict:
    """Remainders of the same modulus, equal or apart by a multiple of it."""
    assert answer.modulus is not None and gold.modulus is not None
    moduli, values = ([rational(node) for node in pair] for pair in ((answer.modulus, gold.modulus), (answer.node, gold.node)))
    if None in moduli or None in values or not all(moduli):
        return both([nodes_same(answer.modulus, gold.modulus), nodes_same(answer.node, gold.node)]) or None
    return moduli[0] == moduli[1] and (values[0] - values[1]) % moduli[0] == 0  # type: ignore[operator]


def _percentages(answer: Quantity, gold: Quantity) -> Verdict:
    """p % is p/100, and a bare p of 1 or more."""
    if answer.percent and gold.percent:
        return values(answer, gold)
    share, plain = (answer, gold) if answer.percent else (gold, answer)
    if plain.unit is not None:
        return False
    hundredth = Quantity(("mul", share.node, ("num", Fraction(1, 100))), places=share.places and share.places + 2)
    if values(hundredth, plain):
        return True
    value = rational(share.node)
    value = number_value(share.node) if value is None else value
    return value is not None and abs(value) >= 1 and values(share, plain)


def values(answer: Quantity, gold: Quantity) -> Verdict:
    found = nodes_same(answer.node, gold.node)
    if found is False and (answer.places or gold.places):
        return _rounded(answer, gold)
    return found


def _rounded(answer: Quantity, gold: Quantity) -> bool:
    """A decimal of six places or more is what it is rounded from, to at least five significant digits."""
    exact = rational(answer.node), rational(gold.node)
    for places, mine, other in ((answer.places, exact[0], gold), (gold.places, exact[1], answer)):
        if not places or places < 6 or mine is None or abs(mine) * 10**places < 10**4:
            continue
        if other.places is not None and other.places < places:
            continue
        value = number_value(other.node)
        if value is None:
            continue
        import mpmath

        with mpmath.workdps(60):
            if round(mine * 10**places) == int(mpmath.nint(value * 10**places)) and rational(other.node) != round(value):
                return True
    return False


def compare_numerals(answer: Shape, gold: Shape, same: Same) -> Verdict:
    """With two bases by value, with one by its digits."""
    if not (isinstance(answer, Based) or isinstance(gold, Based)):
        raise NotMine
    if isinstance(answer, Based) and isinstance(gold, Based):
        return int(answer.numeral, answer.base) == int(gold.numeral, gold.base)
    based, other = (answer, gold) if isinstance(answer, Based) else (gold, answer)
    assert isinstance(based, Based)
    if isinstance(other, Quantity) and (value := rational(other.node)) is not None:
        return str(value) == based.numeral
    if isinstance(other, Text):
        return other.words.lower() == based.numeral
    return False


def compare_ratios(answer: Shape, gold: Shape, same: Same) -> Verdict:
    """Terms in proportion; two times of day only as they stand; a : b is a/b."""
    if not (isinstance(answer, Ratio) or isinstance(gold, Ratio)):
        raise NotMine
    if isinstance(answer, Ratio) and isinstance(gold, Ratio):
        if len(answer.parts) != len(gold.parts):
            return False
        exact = both([nodes_same(left, right) for left, right in zip(answer.parts, gold.parts)])
        if exact or (answer.clock and gold.clock):
            return exact
        if any(rational(part) == 0 for part in (*answer.parts, *gold.parts)):
            return None
        pairs = [nodes_same(("mul", left, gold.parts[0]), ("mul", right, answer.parts[0])) for left, right in zip(answer.parts, gold.parts)]
        return both(pairs)
    ratio, other = (answer, gold) if isinstance(answer, Ratio) else (gold, answer)
    if isinstance(other, Relation):
        raise NotMine
    assert isinstance(ratio, Ratio)
    if not isinstance(other, Quantity) or len(ratio.parts) != 2:
        return False
    found = nodes_same(("mul", ratio.parts[0], ("pow", ratio.parts[1], ("num", Fraction(-1)))), other.node)
    return None if found and ratio.clock else found


def compare_matrices(answer: Shape, gold: Shape, same: Same) -> Verdict:
    """Entry by entry; a row or a column also as a tuple."""
    if not (isinstance(answer, Matrix) or isinstance(gold, Matrix)):
        raise NotMine
    if isinstance(answer, Matrix) and isinstance(gold, Matrix):
        if [len(row) for row in answer.rows] != [len(row) for row in gold.rows]:
            return False
        return both([nodes_same(left, right) for mine, theirs in zip(answer.rows, gold.rows) for left, right in zip(mine, theirs)])
    matrix, other = (answer, gold) if isinstance(answer, Matrix) else (gold, answer)
    if isinstance(other, Relation):
        raise NotMine
    assert isinstance(matrix, Matrix)
    if len(matrix.rows) > 1 and len(matrix.rows[0]) > 1:
        return False
    entries = [entry for row in matrix.rows for entry in row]
    if not isinstance(other, Sequence) or other.opening not in ("(", "\\langle") or other.closing not in (")", "\\rangle"):
        return False
    if len(other.parts) != len(entries):
        return False
    return both([same(Quantity(entry), part) for entry, part in zip(entries, other.parts)])
