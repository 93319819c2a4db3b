"""Where a writer's span ends."""

from __future__ import annotations

import pytest

from qup.text.turns import ORACLE, STUDENT, Rule, sentence_end, student_end


@pytest.mark.parametrize(
    ("span", "kept"),
    [
        ("okay , so Rosa begins with 3 hats .", "okay , so Rosa begins with"),
        ("\nnow she loses 4 hats . so", "\nnow she loses"),
        ("Hmm, let me think. Then we get $x = 2$.", "Hmm, let me think. Then we get"),
        ("hmm , let me think . so far so good .", "hmm , let me think . so far so good ."),
        ("therefore the remaining apples", "therefore"),
        ("nothing to see here", "nothing to see here"),
        ("12 apples", ""),
    ],
)
def test_the_students_manner_ends_where_a_number_a_formula_or_the_connective_before_it_does(span: str, kept: str) -> None:
    assert span[: student_end(span)] == kept


@pytest.mark.parametrize(
    ("span", "kept"),
    [
        (" 3 times 2 is 6 .\nnext", " 3 times 2 is 6 ."),
        (" 3.5 apples. Then", " 3.5 apples."),
        ("\nso 12 is 12\nanswer", "\nso 12 is 12"),
        (" 33", " 33"),
    ],
)
def test_the_oracles_reasoning_ends_with_its_sentence(span: str, kept: str) -> None:
    assert span[: sentence_end(span)] == kept


def test_the_rule_asks_by_writer() -> None:
    spans = ["so 2 . more", "so 2 . more"]
    assert Rule().ends(["", ""], spans, STUDENT) == [2, 2]
    assert Rule().ends(["", ""], spans, ORACLE) == [6, 6]
