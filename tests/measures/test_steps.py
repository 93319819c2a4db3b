"""Where steps begin, by characters and by tokens."""

from __future__ import annotations

import itertools

import pytest

from qup.measures.registry import STEPS
from qup.measures.steps import GAPS, first_tokens, starts

TEXT = "So 3.5 + 4 = 7.5. Is it? Yes!\nThe answer\n\n is 7.5 .\n"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("sentences", ["So 3.5 + 4 = 7.5. ", "Is it? ", "Yes!\n", "The answer\n\n ", "is 7.5 .\n"]),
        ("lines", ["So 3.5 + 4 = 7.5. Is it? Yes!\n", "The answer\n\n ", "is 7.5 .\n"]),
        ("blank_lines", ["So 3.5 + 4 = 7.5. Is it? Yes!\nThe answer\n\n ", "is 7.5 .\n"]),
    ],
)
def test_steps_begin_at_their_first_letter(steps, expected):
    found = [*starts(TEXT, steps), len(TEXT)]
    assert [TEXT[a:b] for a, b in itertools.pairwise(found)] == expected


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("text", ["", "  \n\n "])
def test_white_space_alone_has_no_step(steps, text):
    assert starts(text, steps) == []
    assert first_tokens(text, [len(text)] if text else [], steps).tolist() == []


def test_every_way_that_may_be_named_is_there():
    assert set(STEPS) == set(GAPS)


def test_the_token_that_holds_a_steps_first_letter_is_its_first():
    """A token may begin with the space before the step, or hold the end of the step before."""
    text = "Go. Up it. So"
    ends = [2, 6, 9, 10, 13]  # "Go", ". Up", " it", ".", " So"
    assert first_tokens(text, ends, "sentences").tolist() == [0, 1, 4]


def test_of_two_steps_in_one_token_one_is_kept():
    assert first_tokens("A. B. C. D", [1, 8, 10], "sentences").tolist() == [0, 1, 2]


def test_a_token_that_ends_where_a_step_begins_is_not_of_it():
    assert first_tokens("A.\nB", [2, 3, 4], "lines").tolist() == [0, 2]
