"""Words and names in an order that matters."""

from __future__ import annotations

import re

from qup.answers.reading.shapes import Quantity, Relation, Sequence, Shape, Text
from qup.answers.sameness.logic import NotMine, Same, Verdict


def compare_texts(answer: Shape, gold: Shape, same: Same) -> Verdict:
    if not (isinstance(answer, Text) or isinstance(gold, Text)):
        raise NotMine
    if isinstance(answer, Text) and isinstance(gold, Text):
        return _spelled(answer.words) == _spelled(gold.words)
    text, other = (answer, gold) if isinstance(answer, Text) else (gold, answer)
    assert isinstance(text, Text)
    if isinstance(other, Quantity) and other.node[0] == "sym":
        return str(other.node[1]).strip('"') == text.words
    if isinstance(other, Quantity) and text.words.isalpha() and text.words.isupper():
        return None
    if isinstance(other, Relation | Sequence):
        raise NotMine
    return False


def _spelled(words: str) -> str:
    """Words without articles and punctuation at the end."""
    text = re.sub(r"^(?:the|a|an) ", "", " ".join(re.sub(r"[.!,]+$", "", words).split()))
    return {"DNE": "does not exist", "dne": "does not exist"}.get(text, text)
