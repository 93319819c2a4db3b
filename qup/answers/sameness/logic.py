"""Verdicts of three values, and how those of parts make that of the whole."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many

from qup.answers.reading.shapes import Shape

Verdict = bool | None


Same = Callable[[Shape, Shape], Verdict]
"""The rule for any two shapes, handed to the rules for one kind."""


class NotMine(Exception):
    """A rule that says nothing about these shapes."""


def both(verdicts: Many[Verdict]) -> Verdict:
    """All of several: False once one is, else None once one is."""
    return False if False in verdicts else None if None in verdicts else True


def either(verdicts: Many[Verdict]) -> Verdict:
    return True if True in verdicts else None if None in verdicts else False


def matched(left: Many, right: Many, equal: Callable[..., Verdict]) -> Verdict:  # type: ignore[type-arg]
    """Whether the entries of one are those of the other in some order, each as often."""
    if len(left) != len(right):
        return False
    rest, uncertain = list(right), False
    for entry in left:
        verdicts = []
        for index, other in enumerate(rest):
            found = equal(entry, other)
            verdicts.append(found)
            if found:
                del rest[index]
                break
        else:
            if None not in verdicts:
                return False
            uncertain = True
    return None if uncertain else True
