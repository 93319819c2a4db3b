"""Properties that hold for any answer: hypothesis looks for one that breaks them."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from qup.answers.comparison import compare, decide, form, shape
from qup.answers.extraction import balanced, extract
from qup.answers.reading.normal import LONGEST
from qup.answers.verifier import CORRECT, VERDICTS
from qup.config.schema import EXTRACTIONS

PIECES = st.sampled_from(
    ["x", "y", "R", "r", "i", "e", "n", "1", "2", "3", "10", "0.5", ".25", "1,000", "+", "-", "*", "/", "^", "_", "^2", "_1", "'", "!", "(", ")", "[", "]", "{", "}", "|", ",", ";", ":", "=", "<", ">", "\\le", "\\in", "\\frac", "\\frac12", "\\sqrt", "\\sqrt[3]", "\\pi", "\\gamma", "\\infty", "\\pm", "\\cdot", "\\times", "\\sin", "\\cos", "\\ln", "\\log", "\\log_2", "^\\circ", "\\%", "%", "\\$", "\\{", "\\}", "\\cup", "\\mathbb{R}", "\\text{cm}", "\\text{and}", "\\text", "m", "km", "\\sum_{i=1}^3", "\\int_0^1", "dx", "\\lim_{x\\to0}", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\", "\\binom", "\\overline", "\\dot", "or", "and", "half", "twelve", "½", "√", "²", "°", "×", "𝑥", "\\left", "\\right", "\\boxed", "$", "answer", "is"]
)  # fmt: skip
JUMBLE = st.lists(PIECES, max_size=14).map(" ".join) | st.lists(PIECES, max_size=10).map("".join)
TEXTS = JUMBLE | st.text(max_size=80)

NUMBER = st.integers(-9, 9).map(str) | st.sampled_from(["\\frac12", "0.5", "\\sqrt{2}", "\\pi", "e", "i"])
NAME = st.sampled_from(["x", "y", "R", "r", "x_1", "y'", "\\gamma", "\\theta"])
EXPRESSION = st.recursive(
    NUMBER | NAME,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"\\left({pair[0]}\\right)+\\left({pair[1]}\\right)"),
        st.tuples(inner, inner).map(lambda pair: f"\\frac{{{pair[0]}}}{{{pair[1]}}}"),
        st.tuples(inner, st.integers(2, 3)).map(lambda pair: f"\\left({pair[0]}\\right)^{{{pair[1]}}}"),
        inner.map(lambda one: f"\\sin\\left({one}\\right)"),
    ),
    max_leaves=5,
)
QUICKLY = settings(max_examples=150, deadline=None, derandomize=True)


@QUICKLY
@given(TEXTS, TEXTS)
def test_no_text_raises_and_every_verdict_is_a_known_one(answer: str, gold: str) -> None:
    assert decide(answer, gold) in (*VERDICTS, None)


@QUICKLY
@given(TEXTS)
def test_every_answer_is_itself(answer: str) -> None:
    assert compare(answer, answer) == ("equal" if answer else "no_answer")


@settings(QUICKLY, max_examples=80)
@given(EXPRESSION, EXPRESSION)
def test_for_expressions_same_is_symmetric(left: str, right: str) -> None:
    assert (compare(left, right) in CORRECT) == (compare(right, left) in CORRECT)


@settings(QUICKLY, max_examples=80)
@given(EXPRESSION)
def test_an_expression_is_not_itself_and_one_more(answer: str) -> None:
    assert compare(f"({answer})+1", answer) not in CORRECT


@settings(QUICKLY, max_examples=80)
@given(EXPRESSION)
def test_an_expression_is_itself_with_its_terms_turned_round(answer: str) -> None:
    assert compare(f"7+({answer})", f"({answer})+7") in (*CORRECT, "undecided")


@settings(QUICKLY, max_examples=60)
@given(EXPRESSION)
def test_a_letter_in_the_other_case_is_another_letter(answer: str) -> None:
    assert compare(f"({answer})+K", f"({answer})+k") not in CORRECT


@QUICKLY
@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_integers_are_the_same_only_if_they_are(left: int, right: int) -> None:
    assert (compare(f"{left:,}", str(right)) in CORRECT) == (left == right)
    assert compare(f"{left:,}", str(left)) in CORRECT


@QUICKLY
@given(TEXTS)
def test_an_extracted_answer_never_raises(text: str) -> None:
    for mode in EXTRACTIONS:
        extract(text, mode)


@QUICKLY
@given(
    st.text(alphabet="0123456789x+-/\\{}^_ ", max_size=30).filter(
        lambda text: balanced(text) and text.strip() and "boxed" not in text and text.strip()[-1] != "\\"
    )
)
def test_a_boxed_answer_is_read_back(answer: str) -> None:
    assert extract(f"so it is $\\boxed{{{answer}}}$.", "boxed") == answer.strip()


@settings(QUICKLY, max_examples=40)
@given(st.lists(PIECES, min_size=1, max_size=4).map("".join))
def test_reading_takes_no_time_however_often_something_is_repeated(piece: str) -> None:
    text = (piece * LONGEST)[:LONGEST]
    start = time.process_time()
    shape.__wrapped__(form.__wrapped__(text).tidied)
    assert time.process_time() - start < 1.5
