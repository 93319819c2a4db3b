"""What can be decided about two answers at once, without computer algebra."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from qup.answers.extraction import balanced
from qup.answers.normal import LONGEST, is_words, normal, tidy
from qup.answers.values import Number, equal_numbers, read_number, without_units

_PARTED_DIGITS = re.compile(r"[0-9] [0-9]")
_PERCENT = re.compile(r" ?\\?%$")


@dataclass(frozen=True)
class Form:
    """An answer as compared: its normal form, the number or words it is as a whole, and what computer algebra is given."""

    normal: str
    number: Number | None
    words: bool
    latex: str


@lru_cache(maxsize=65536)
def form(answer: str) -> Form:
    """The form of an answer of at most LONGEST characters."""
    tidied = tidy(answer)
    same = normal(tidied)
    return Form(same, read_number(tidied), is_words(same), without_units(_PERCENT.sub("", tidied)))


def decide(answer: str, gold: str) -> str | None:
    """equal, symbolic, wrong or no_answer; None where it takes computer algebra to tell.

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
    if left.number and right.number:
        return "symbolic" if equal_numbers(left.number, right.number) else "wrong"
    if (left.words or left.number) and (right.words or right.number):
        return "wrong"
    if any(_PARTED_DIGITS.search(side.latex) or not balanced(side.latex) for side in (left, right)):
        return "wrong"
    return None
