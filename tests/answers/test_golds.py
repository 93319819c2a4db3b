"""Reading gold answers out of data sets."""

from __future__ import annotations

from decimal import Decimal

import pytest

from qup.answers.golds import gold
from qup.config.schema import GOLDS
from qup.errors import InputError

READ = [
    ("plain", " \\frac{1}{2} ", "\\frac{1}{2}"),
    ("plain", 43.0, "43"),
    ("plain", 0.5, "0.5"),
    ("plain", 7, "7"),
    ("plain", "025", "025"),
    ("boxed", "so \\boxed{1}, no, \\boxed{\\frac{2}{3}}.", "\\frac{2}{3}"),
    ("gsm8k", "3 + 4 = 7\n#### 1,070", "1070"),
    ("gsm8k", "#### 5 dollars", "5 dollars"),
    ("float", 27.0, "27"),
    ("float", "27.0", "27"),
    ("float", "27.5", "27.5"),
    ("float", -3, "-3"),
    ("float", "90000000000000000001", "90000000000000000001"),
    ("float", "12345678901234567890.50", "12345678901234567890.5"),
    ("float", "1e20", "100000000000000000000"),
    ("float", Decimal("27.00"), "27"),
    ("float", "9" * 5000, "9" * 5000),
    ("plain", Decimal("12345678901234567890.125"), "12345678901234567890.125"),
    ("plain", 10**4000, "1" + "0" * 4000),
    ("first", ["$\\frac{1}{2}$", "3"], "\\frac{1}{2}"),
    ("first", '["$5$"]', "5"),
    ("first", ["$1$ and $2$"], "$1$ and $2$"),
    ("first", [4.0], "4"),
    ("lab", "12", "12"),
    ("lab", 12, "12"),
]
UNREADABLE = [
    ("plain", None, "not an answer"),
    ("plain", "  ", "empty"),
    ("plain", ["4"], "not an answer"),
    ("plain", True, "not an answer"),
    ("plain", float("nan"), "not a number"),
    ("plain", "\\frac{1}{2", "unbalanced braces"),
    ("plain", "1\x002", "null byte"),
    ("plain", "\ud800", "surrogate"),
    ("boxed", "a proof", "no closed"),
    ("boxed", "\\boxed{5", "no closed"),
    ("boxed", 5, "not a text"),
    ("boxed", "\\boxed{}", "empty"),
    ("gsm8k", "the answer is 5", "no ####"),
    ("float", "five", "not a number"),
    ("float", "inf", "not a number"),
    ("float", "1e999999999", "not a number"),
    ("plain", Decimal("NaN"), "not a number"),
    ("first", "5", "not a list"),
    ("first", [], "empty"),
    ("first", "[5", "not a list"),
    ("lab", "12.0", "not an integer"),
    ("lab", "twelve", "not an integer"),
]


@pytest.mark.parametrize(("mode", "value", "answer"), READ)
def test_reads_the_gold_answer(mode: str, value: object, answer: str) -> None:
    assert gold(value, mode) == answer


@pytest.mark.parametrize(("mode", "value", "why"), UNREADABLE)
def test_says_why_there_is_none(mode: str, value: object, why: str) -> None:
    with pytest.raises(InputError, match=why):
        gold(value, mode)


def test_every_mode_is_tried_above_both_ways() -> None:
    assert {mode for mode, _, _ in READ} == {mode for mode, _, _ in UNREADABLE} == set(GOLDS)


def test_an_unknown_mode_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"gold='box'.*plain, boxed, gsm8k"):
        gold("1", "box")


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(InputError) as error:
        gold("a proof " * 10_000, "boxed")
    assert len(str(error.value)) < 120
