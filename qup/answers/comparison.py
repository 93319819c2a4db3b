"""What can be decided about two answers at once, and what takes a process of its own."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from qup.answers.reading.normal import LONGEST, decimals, normal, plain_number, tidy, words
from qup.answers.reading.reader import read
from qup.answers.reading.shapes import Based, Quantity, Shape, Text
from qup.answers.reading.tokens import Unreadable
from qup.answers.sameness import same
from qup.answers.sameness.exact import rational

REMEMBERED = 65536
_PLAIN = re.compile(r"-?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]+)?")


@dataclass(frozen=True)
class Form:
    """An answer as first compared: tidied, its normal form, and the plain number or the words it is as a whole."""

    tidied: str
    normal: str
    number: Fraction | None
    places: int
    worded: bool


@lru_cache(maxsize=REMEMBERED)
def form(answer: str) -> Form:
    """The form of an answer of at most LONGEST characters."""
    if _PLAIN.fullmatch(answer):
        value = Fraction(answer.replace(",", ""))
        return Form(answer, str(value), value, len(answer.partition(".")[2]), False)
    tidied = tidy(answer)
    number, found = plain_number(tidied), normal(tidied)
    return Form(tidied, found, number, decimals(tidied) if number is not None else 0, number is None and words(found) is not None)


@lru_cache(maxsize=REMEMBERED)
def shape(tidied: str) -> Shape | str:
    """The shape of a tidied answer, or why it has none for certain."""
    try:
        return read(tidied)
    except Unreadable as error:
        return str(error)
    except (RecursionError, ValueError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"


def decide(answer: str, gold: str) -> str | None:
    """equal, symbolic, wrong, undecided or no_answer; None where it takes values of expressions, which may take long.

    Answers over LONGEST characters are compared as they stand.
    """
    if not answer:
        return "no_answer"
    if answer == gold:
        return "equal"
    if max(len(answer), len(gold)) > LONGEST:
        return "equal" if answer.strip() == gold.strip() else "wrong"
    left, right = form(answer), form(gold)
    if left.normal == right.normal and left.normal:
        return "equal"
    if left.number is not None and right.number is not None and max(left.places, right.places) < 6:
        return "wrong"
    if left.worded and right.number is not None and right.worded:
        return "wrong"
    shapes = shape(left.tidied), shape(right.tidied)
    if any(isinstance(found, str) for found in shapes):
        return "undecided"
    return judge(left.tidied, right.tidied) if all(_settled(found) for found in shapes) else None


def compare(answer: str, gold: str) -> str:
    """The verdict, worked out in this process and with no limit on its time."""
    return decide(answer, gold) or judge(form(answer).tidied, form(gold).tidied)


def judge(answer: str, gold: str) -> str:
    """symbolic, wrong or undecided, of two tidied answers."""
    left, right = shape(answer), shape(gold)
    if isinstance(left, str) or isinstance(right, str):
        return "undecided"
    try:
        found = same(left, right)
    except (Unreadable, RecursionError, ValueError, ArithmeticError, NotImplementedError):
        return "undecided"
    return "undecided" if found is None else "symbolic" if found else "wrong"


def _settled(found: Shape | str) -> bool:
    """Whether it takes no time to compare: words, numerals and rational numbers."""
    return isinstance(found, Text | Based) or (isinstance(found, Quantity) and rational(found.node) is not None)


def ballot(answer: str) -> Hashable:
    """What two answers share where they count as one vote: their normal form, or their number with what it is in."""
    if len(answer) > LONGEST:
        return answer
    found = form(answer)
    if found.number is not None:
        return found.number
    read_as = shape(found.tidied)
    if isinstance(read_as, Quantity) and (value := rational(read_as.node)) is not None:
        unit = (read_as.unit.dimension, read_as.unit.size, read_as.unit.words) if read_as.unit else None
        return value if unit is None and not read_as.percent else (value, unit, read_as.percent)
    return found.normal
