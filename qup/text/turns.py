"""Where one writer's span ends, for traces that a student and an Oracle write in turn (TESSY, arXiv 2604.14164).

The student writes the manner, the Oracle the reasoning. The paper's authors ask a small classifier of tokens; the rule here
goes by what stands in the text: a number or a formula is reasoning, a connective leads to it, a sentence's end closes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from qup.config.paths import is_commit

STUDENT, ORACLE = "student", "oracle"
CONNECTIVES = (
    *("so", "then", "thus", "hence", "therefore", "because", "since", "next", "now", "first", "finally", "wait", "hmm", "but", "also"),
    *("that means", "which means", "which gives", "we get", "we have", "this gives", "let us", "let me", "let's"),
)
_REASONING = re.compile(r"[\d$\\=∑∫√≤≥<>^]")
_CONNECTIVE = re.compile(rf"\b(?:{'|'.join(re.escape(word) for word in sorted(CONNECTIVES, key=len, reverse=True))})\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[.?!](?=\s|$)|\n")


class Boundary(Protocol):
    """Says how much of a span is kept."""

    def ends(self, before: Sequence[str], spans: Sequence[str], writer: str) -> list[int]:
        """Characters kept of each of `spans`, written by `writer` after the texts `before`; a whole span where it goes on."""
        ...


class Rule:
    """By connectives, numbers and sentence ends."""

    def ends(self, before: Sequence[str], spans: Sequence[str], writer: str) -> list[int]:
        return [student_end(span) if writer == STUDENT else sentence_end(span) for span in spans]


def student_end(span: str) -> int:
    """Characters of the student's span up to its first number or formula; the white space before that is not the student's.

    Of a sentence with a connective that leads to the number, all words before the number are manner. Where nothing of the
    kind comes, the whole sentences, and what follows the last connective is left to the Oracle.
    """
    found = _REASONING.search(span)
    if found:
        return len(span[: found.start()].rstrip())
    closed = max((match.end() for match in _SENTENCE.finditer(span)), default=0)
    led = max((match.end() for match in _CONNECTIVE.finditer(span)), default=0)
    return max(closed, led) or len(span)


def sentence_end(span: str) -> int:
    """Characters of the Oracle's span to the end of its first sentence, without the line break behind it."""
    for found in _SENTENCE.finditer(span):
        if span[: found.start()].strip():
            return found.start() if found[0] == "\n" else found.end()
    return len(span)


class Classifier:
    """A token classifier by path, as the authors': label 1 is the student's manner, 0 the Oracle's reasoning."""

    def __init__(self, path: str, revision: str | None = None, window: int = 512) -> None:
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
        self.model: Any = AutoModelForTokenClassification.from_pretrained(path, revision=revision).eval()
        self.window = window

    def ends(self, before: Sequence[str], spans: Sequence[str], writer: str) -> list[int]:
        import torch

        made = []
        other = 0 if writer == STUDENT else 1
        for text, span in zip(before, spans, strict=True):
            found = self.tokenizer(text + span, return_offsets_mapping=True, add_special_tokens=False)
            ids, offsets = found["input_ids"][-self.window :], found["offset_mapping"][-self.window :]
            if not ids:
                made.append(len(span))
                continue
            with torch.inference_mode():
                labels = self.model(torch.tensor([ids])).logits[0].argmax(-1).tolist()
            cut = next((start for label, (start, _) in zip(labels, offsets, strict=True) if start > len(text) and label == other), None)
            made.append(len(span) if cut is None else _word_end(span, cut - len(text)))
        return made


def _word_end(span: str, at: int) -> int:
    """The start of the word that `at` lies in."""
    while 0 < at < len(span) and not span[at - 1].isspace():
        at -= 1
    return len(span[:at].rstrip())


def open_boundary(boundary: str, content: str) -> Boundary:
    """The rule, or a classifier by path; one of the hub's is taken at the commit that `content` names."""
    if boundary == "rule":
        return Rule()
    return Classifier(boundary, content if is_commit(content) else None)
