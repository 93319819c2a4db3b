"""Which training problems also stand in a benchmark: the same text, or thirteen words in a row."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WORDS = 13
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """Training problems that stand in one benchmark: bool (n_problems,) by each of the two measures.

    `ngram13_P` is true where thirteen words in a row are shared; a text of fewer words has no such row.
    """

    exact_P: np.ndarray
    ngram13_P: np.ndarray

    def removed(self, rule: str) -> np.ndarray:
        """What the rule (exact, ngram13 or none) takes out; ngram13 takes exact matches too."""
        if rule == "none":
            return np.zeros_like(self.exact_P)
        return self.exact_P if rule == "exact" else self.exact_P | self.ngram13_P


def folded(text: str) -> str:
    """The text under NFKC, without case, white space single."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def overlaps(questions: Sequence[str], benchmarks: Mapping[str, Sequence[str]]) -> dict[str, Overlap]:
    """For each benchmark, which of the questions stand in it; linear in the words of both."""
    found = {name: Overlap(np.zeros(len(questions), bool), np.zeros(len(questions), bool)) for name in benchmarks}
    texts = {name: {folded(text) for text in of} for name, of in benchmarks.items()}
    grams = {name: set().union(*(_grams(text) for text in of)) for name, of in texts.items()}
    for p, question in enumerate(questions):
        text = folded(question)
        own = _grams(text)
        for name, overlap in found.items():
            overlap.exact_P[p] = text in texts[name]
            overlap.ngram13_P[p] = not grams[name].isdisjoint(own)
    return found


def _grams(text: str) -> list[int]:
    """Hashes of every thirteen words in a row; they hold within this process only."""
    words = _WORD.findall(text)
    return [hash(tuple(words[start : start + WORDS])) for start in range(len(words) - WORDS + 1)]
