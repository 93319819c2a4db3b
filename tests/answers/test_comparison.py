"""What is decided about two answers: certain, and nothing else."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from qup.answers.comparison import compare, decide
from qup.answers.reading.normal import LONGEST, RULES
from qup.answers.verifier import CORRECT

SAME = [
    ("$\\frac12$", "\\dfrac{1}{2}"),
    ("1,000,000", "1000000"),
    ("1{,}000", "1\\,000"),
    ("1 000", "1000"),
    ("10,\\!080", "10080"),
    ("043.50", "43.5"),
    ("5.", "5"),
    ("−5", "-5"),
    ("-\\frac{1}{2}", "\\frac{-1}{2}"),
    ("0.5", "1/2"),
    ("12 \\frac{3}{5}", "\\frac{63}{5}"),
    ("1 1/2", "1.5"),
    ("0.1\\overline{6}", "\\frac16"),
    ("6.02e23", "6.02 \\times 10^{23}"),
    ("10^{-3}", "0.001"),
    ("0.333333", "\\frac13"),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})"),
    ("\\text{Evelyn}", "evelyn"),
    ("4:30 \\text{ p.m.}", "\\text{4:30 p.m.}"),
    ("x^{2}", "x^2"),
    ("**18**", "18"),
    ("5\\text{ cm}", "5"),
    ("5", "5 \\mbox{ cm}^2"),
    ("18 seashells", "18"),
    ("3 months", "3"),
    ("500 cm", "5\\text{ m}"),
    ("60\\text{ minutes}", "1 hour"),
    ("\\$18.90", "18.9"),
    ("60^\\circ", "60"),
    ("60°", "60^{\\circ}"),
    ("50\\%", "50"),
    ("50\\%", "0.5"),
    ("33\\frac{1}{3}\\%", "\\frac13"),
    ("1010_2", "1010"),
    ("1010_2", "10_{10}"),
]
DIFFERENT = [
    ("4", "5"),
    ("1 000", "2 000"),
    ("11/2", "1 1/2"),
    ("2 3", "6"),
    ("0.00000001", "0.00000002"),
    ("1e-8", "2e-8"),
    ("0.33", "1/3"),
    ("0.3333", "1/3"),
    ("2.0001", "2"),
    ("5\\text{ m}", "5\\text{ g}"),
    ("Evelyn", "7"),
    ("0.5\\%", "0.5"),
    ("1010_2", "1010_3"),
    ("1010_2", "10"),
    ("5 cm", "5\\text{ m}"),
    ("5 dollars", "5 cents"),
    ("x \\text{ is even}", "x \\text{ is odd}"),
    ("ACBD", "ABCD"),
    ("Monday", "Tuesday"),
    ("0.\\overline{3}", "0.\\overline{7}"),
    ("\\frac{1}{2", "1/2"),
    ("{" * 1000, "7"),
    ("a" * (LONGEST + 1), "a"),
]


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_the_same_answer_in_other_words(answer: str, gold: str) -> None:
    assert compare(answer, gold) in CORRECT
    assert compare(gold, answer) in CORRECT


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_answers_that_only_look_alike(answer: str, gold: str) -> None:
    assert compare(answer, gold) == compare(gold, answer)
    assert compare(answer, gold) in ("wrong", "undecided")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("x+1", "1+x"),
        ("4s", "4"),
        ("2ab", "2"),
        ("(1,2)", "\\{1,2\\}"),
        ("x=5", "5"),
        ("1,2", "2,1"),
        ("7\\pi", "22"),
    ],
)
def test_what_takes_values_of_expressions_is_left_to_the_children(answer: str, gold: str) -> None:
    assert decide(answer, gold) is None


def test_no_answer_is_no_answer() -> None:
    assert decide("", "5") == "no_answer"


def test_equal_strings_are_equal_however_long_or_broken() -> None:
    for text in ("{" * 10, "\x00", "\ud800", "a" * 1_000_000):
        assert decide(text, text) == "equal"


def test_numbers_are_judged_as_math_verify_judges_them() -> None:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    rng = random.Random(1)

    def number() -> str:
        n, a, b = rng.randint(-20, 20), rng.randint(1, 9), rng.randint(2, 9)
        forms = [
            str(n),
            f"{n}.0",
            f"{n / 4:g}",
            f"\\frac{{{a}}}{{{b}}}",
            f"-\\frac{{{a}}}{{{b}}}",
            f"{a}/{b}",
            f"{a / b:.{rng.choice((2, 4, 6, 8))}f}",
            f"{n * 1234:,}",
        ]
        return rng.choice([*forms, f"{n} \\times 10^{{{rng.randint(-2, 3)}}}"])

    right = 0
    for _ in range(250):
        answer = number()
        gold = rng.choice([number(), answer.replace("frac", "dfrac")])
        theirs = verify(parse(f"${gold}$", parsing_timeout=None), parse(f"${answer}$", parsing_timeout=None), timeout_seconds=None)
        assert (decide(answer, gold) in CORRECT) == theirs, (answer, gold)
        right += theirs
    assert 60 < right < 190


def test_every_rule_is_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "answers.md").read_text()
    assert len(RULES) > 15
    for name, does in RULES:
        assert f"| {name} | {does} |" in text
