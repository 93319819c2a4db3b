"""Overlap of training problems with benchmarks."""

from __future__ import annotations

import time

import numpy as np
import pytest

from qup.data.decontamination import Overlap, folded, overlaps

LONG = "A train leaves at nine in the morning and covers sixty miles in every hour of its way"


def by(measure: str, questions: list[str], benchmark: list[str]) -> list[bool]:
    return getattr(overlaps(questions, {"b": benchmark})["b"], measure).tolist()


def test_exact_is_after_nfkc_case_and_white_space() -> None:
    questions = ["What is  1+1 ?\n", "WHAT IS 1+1 ?", "what is １＋１ ?", "What is 1 + 1?", "What is 1+2 ?"]
    assert by("exact_P", questions, ["What is 1+1 ?"]) == [True, True, True, False, False]


def test_thirteen_words_in_a_row_are_found_wherever_they_stand() -> None:
    words = LONG.split()
    thirteen, twelve = " ".join(words[2:15]), " ".join(words[2:14])
    questions = [f"Once upon a time {thirteen.upper()}, they say", f"Once upon a time {twelve}, they say", " ".join(reversed(words))]
    assert by("ngram13_P", questions, [LONG]) == [True, False, False]
    assert by("exact_P", questions, [LONG]) == [False, False, False]


def test_short_texts_have_no_thirteen_words() -> None:
    assert by("ngram13_P", ["What is 1+1?"], ["What is 1+1?"]) == [False]


def test_benchmarks_are_told_apart() -> None:
    found = overlaps(["a", "b", "c"], {"one": ["a"], "two": ["B", "c"], "none": []})
    assert {name: overlap.exact_P.tolist() for name, overlap in found.items()} == {
        "one": [True, False, False],
        "two": [False, True, True],
        "none": [False, False, False],
    }


def test_what_each_rule_removes() -> None:
    overlap = Overlap(np.array([True, False, False]), np.array([False, True, False]))
    assert overlap.removed("none").tolist() == [False, False, False]
    assert overlap.removed("exact").tolist() == [True, False, False]
    assert overlap.removed("ngram13").tolist() == [True, True, False]


def test_folding_is_stable() -> None:
    assert folded(folded("  ﬁve\u00a0Straße ")) == folded("five STRASSE") == "five strasse"


@pytest.mark.timeout(60)
def test_is_linear_in_the_words() -> None:
    def seconds(n: int) -> float:
        questions = [f"{LONG} number {k} of many more that follow in the book" for k in range(n)]
        start = time.process_time()
        overlaps(questions, {"b": questions[:100]})
        return time.process_time() - start

    seconds(100)
    assert seconds(8000) < 16 * seconds(1000)
