"""Pairs of answers by kind of trouble, ours and the shared ones: no different pair is called the same, and equal ones are recognised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qup.answers.comparison import compare
from qup.answers.verifier import CORRECT

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "answer_pairs.jsonl"


def ours() -> dict[str, list[tuple[bool, str, str]]]:
    """(same, answer, gold) by kind, of pairs.txt: a line `T || answer || gold`, or F for different ones."""
    kinds: dict[str, list[tuple[bool, str, str]]] = {}
    for line in Path(__file__).with_name("pairs.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            pairs = kinds.setdefault(line[2:], [])
        elif line.strip():
            same, answer, gold = (part.strip() for part in line.split(" || "))
            pairs.append((same == "T", answer, gold))
    return kinds


KINDS = ours()


def test_there_are_hundreds_of_pairs_of_both_sorts() -> None:
    everything = [same for pairs in KINDS.values() for same, _, _ in pairs]
    assert len(KINDS) > 25
    assert everything.count(True) > 450
    assert everything.count(False) > 200


@pytest.mark.parametrize("kind", KINDS)
def test_each_pair_has_its_verdict_whichever_side_is_the_gold(kind: str) -> None:
    pairs = [(same, *pair) for same, left, right in KINDS[kind] for pair in ((left, right), (right, left))]
    assert not [(answer, gold, got) for same, answer, gold in pairs if ((got := compare(answer, gold)) in CORRECT) != same]


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is missing")
def test_the_shared_pairs_no_different_one_is_called_the_same_and_equal_ones_are_recognised() -> None:
    pairs = [json.loads(line) for line in SHARED.read_text(encoding="utf-8").splitlines()]
    assert len(pairs) == 566
    right = [(compare(pair["answer"], pair["gold"]) in CORRECT, pair) for pair in pairs]
    assert [pair for found, pair in right if found and not pair["same"]] == []
    equal = [(found, pair) for found, pair in right if pair["same"]]
    assert [pair for found, pair in equal if not found] == []


def test_the_docs_list_of_what_is_not_recognised_is_true() -> None:
    text = (ROOT / "docs" / "answers.md").read_text(encoding="utf-8")
    table = text[text.index("## Not recognised") : text.index("## Against others")]
    pairs = [line.split(" | ")[:2] for line in table.splitlines() if line.startswith("| `")]
    listed = [(answer.removeprefix("| ").strip("`"), right.strip("`")) for answer, right in pairs]
    assert len(listed) > 5
    assert not [pair for pair in listed if compare(*pair) in CORRECT]
