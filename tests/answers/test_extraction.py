"""Reading answers out of responses."""

from __future__ import annotations

import random
import time

import pyarrow as pa
import pytest

from benchmarks.answers import hostile_responses
from qup.answers.extraction import extract
from qup.config.schema import EXTRACTIONS
from qup.errors import InputError

CASES = [
    ("dft", "The final answer is $\\frac{1}{2}$. I hope it is correct. \\boxed{3}", "\\frac{1}{2}"),
    ("dft", "The final answer is $\\boxed{7}$. I hope it is correct.", "7"),
    ("dft", "so \\boxed{1} and then \\boxed{\\frac{2}{3}}. The answer is 4", "\\frac{2}{3}"),
    ("dft", "The answer is 12.\nThe answer is 3.50 dollars. Then 9", "3.50 dollars"),
    ("dft", "The answer is: **18**", "18"),
    ("dft", "the answer is\n\\[\nx = 5\n\\]\nbecause", "x = 5"),
    ("dft", "First 3, then 1,250 in all", "1250"),
    ("dft", "cut off at \\boxed{7", "7"),
    ("dft", "nothing here", ""),
    ("dft", "So the answer is consistent. Checking once more.\n\nFinal Answer: **73**", "73"),
    ("dft", "**Final Answer**\n$\\frac{1}{2}$", "$\\frac{1}{2}$"),
    ("dft", "So the answer is consistent with 12 + 61 = 73", "73"),
    ("dft", "The answer is 72, which is the total of both.", "72"),
    ("dft", "The answer is 72 because 8 + 64 = 72.", "72"),
    ("dft", "The answer is therefore 18.", "18"),
    ("dft", "The answer is thus, clearly, $x = 3$, so we are done.", "$x = 3$"),
    ("dft", "The answer is 1, 2 and 3.", "1, 2 and 3"),
    ("dft", "The answer is east.", "east"),
    ("dft", "Answer: Let us add 3 and 4, which makes 7", "7"),
    ("dft", "Answer: 7", "7"),
    ("dft", "so $x=\\boxed{3}$ and $y=\\boxed{4}$.", "x=3, y=4"),
    ("dft", "it is $9{,}500$", "9500"),
    ("boxed", "either $\\boxed{3}$ or $\\boxed{4}$", "3, 4"),
    ("boxed", "$\\boxed{3}$, that is, $\\boxed{3}$", "3"),
    ("boxed", "first $\\boxed{3}$. Then, after some work, we get $\\boxed{4}$", "4"),
    ("last_number", "it is $9{,}500$", "9500"),
    ("last_number", "it is $12,\\!345$ or $1\\,234\\,567$", "1234567"),
    ("gsm8k", "#### 9{,}500", "9500"),
    ("boxed", "\\boxed{\\left\\{ 1, 2 \\right.}", "\\left\\{ 1, 2 \\right."),
    ("boxed", "\\boxed{\\boxed{5}}", "5"),
    ("boxed", "\\fbox{ 5 }", "5"),
    ("boxed", "$\\boxed 5$ is it", "5"),
    ("boxed", "boxed{5}", "5"),
    ("boxed", "\\boxed{4} or \\boxed{5", ""),
    ("boxed", "\\boxedx{4}", ""),
    ("boxed", "The answer is 4", ""),
    ("last_number", "10-7", "7"),
    ("last_number", "it was -7", "-7"),
    ("last_number", "from .5 to 2.75.", "2.75"),
    ("last_number", "1,234,567 and 12,34", "34"),
    ("last_number", "3) 1,234,567", "1234567"),
    ("last_number", "no", ""),
    ("gsm8k", "so 3 + 4 = 7\n#### 1,070\nQuestion 8", "1070"),
    ("gsm8k", "#### $12.50", "12.50"),
    ("gsm8k", "A: 18", "18"),
    ("gsm8k", "5 apples\n#### none", "5"),
    ("lab", "answer is near\n4 + 8 = 12\nanswer : 12", "12"),
    ("lab", "answer : 12 = 13", "13"),
    ("lab", "result : 12", ""),
    ("lab", "12\nanswer :", ""),
]


@pytest.mark.parametrize(("mode", "text", "answer"), CASES)
def test_reads_the_answer(mode: str, text: str, answer: str) -> None:
    assert extract(text, mode) == answer


def test_every_mode_is_tried_above() -> None:
    assert {mode for mode, _, _ in CASES} == set(EXTRACTIONS)


def test_an_unknown_mode_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"extraction='box'.*dft, boxed, last_number, gsm8k, lab"):
        extract("1", "box")


@pytest.mark.parametrize("mode", EXTRACTIONS)
def test_a_megabyte_of_anything_takes_linear_time_and_gives_what_can_be_stored(mode: str) -> None:
    for text in hostile_responses():
        start = time.process_time()
        answer = extract(text, mode)
        assert time.process_time() - start < 3, text[:20]
        pa.array([answer], pa.string())


def test_random_text_raises_nowhere() -> None:
    rng = random.Random(0)
    pieces = [
        "\\boxed",
        "{",
        "}",
        "\\",
        "$",
        "####",
        "answer is",
        "final answer is $",
        "$. I hope",
        "7",
        ",",
        "-",
        ".",
        "\n",
        " ",
        "\ud800",
        "\x00",
        "é",
    ]
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=rng.randrange(30)))
        for mode in EXTRACTIONS:
            pa.array([extract(text, mode)], pa.string())
