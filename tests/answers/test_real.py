"""Our verdicts against other graders' on real traces; every disagreement is in docs/answers.md."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from benchmarks.answers import GSM8K, MATH, disagreements, one_by_one, traces
from qup.answers.verifier import CORRECT, Verifier

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not (DATA / MATH).exists() or not (DATA / GSM8K).exists(), reason=f"{DATA} holds no real traces")


def test_the_docs_list_every_disagreement() -> None:
    found = list(traces(DATA))
    assert len(found) == 60 * 8 + 400 * 4
    with Verifier() as verifier:
        verdicts = verifier.verdicts([(trace.answer, trace.gold) for trace in found])
    assert "timeout" not in verdicts
    assert disagreements(found, verdicts) in (ROOT / "docs" / "answers.md").read_text()


def test_the_list_shows_a_disagreement_where_there_is_one() -> None:
    found = list(traces(DATA))[:2]
    assert len(disagreements(found, ["wrong", "equal"]).splitlines()) == 3


def test_agrees_with_the_graders_own_extracted_answers() -> None:
    found = [trace for trace in traces(DATA) if trace.file == MATH]
    with Verifier() as verifier:
        verdicts = verifier.verdicts([(trace.their_answer, trace.their_gold) for trace in found])
    assert [verdict in CORRECT for verdict in verdicts] == [trace.theirs for trace in found]


def test_agrees_with_math_verify_on_the_math_traces() -> None:
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    pairs = sorted({(trace.answer, trace.gold) for trace in traces(DATA) if trace.file == MATH and trace.row != 3})
    with Verifier() as verifier:
        ours = [verdict in CORRECT for verdict in verifier.verdicts(pairs)]
    assert list(zip(pairs, ours)) == list(zip(pairs, one_by_one(pairs)))
