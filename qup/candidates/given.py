"""Traces that are already there: the data set's own solutions, or a file of traces by problem id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from qup.answers import CORRECT, Verifier, extract
from qup.candidates.problems import ProblemSet
from qup.candidates.table import Part, build
from qup.config.schema import Source
from qup.data.traces import read_traces
from qup.errors import InputError
from qup.store import Artifact, rows


@dataclass(frozen=True)
class Given:
    """Texts of each problem, in the file's order."""

    texts_P: list[list[str]]
    counts: dict[str, int]


def dataset_traces(problems: Artifact, solvable: ProblemSet) -> Given:
    """The data set's own chains of thought; problems without one have no trace."""
    table = problems.table("problems", ["problem_id", "solution"])
    owner = rows.positions(table["problem_id"], solvable.ids)
    texts: list[list[str]] = [[] for _ in range(len(solvable))]
    for p, text in zip(owner, table["solution"].to_pylist(), strict=True):
        if p >= 0 and text.strip():
            texts[p].append(text)
    return Given(texts, {"without_solution": sum(not own for own in texts)})


def file_traces(source: Source, solvable: ProblemSet, problems: Artifact) -> Given:
    """Traces of a jsonl or parquet file; ids unknown to the problem set, and of problems the student never solved, are counted."""
    ids, texts = read_traces(source)
    if not ids:
        raise InputError(f"source.path={source.path}: the file holds no trace")
    names = pa.array(ids)
    owner = rows.positions(names, solvable.ids)
    known = rows.positions(names, problems.table("problems", ["problem_id"])["problem_id"]) >= 0
    if not known.any():
        raise InputError(
            f"source.path={source.path}: none of its {len(ids)} ids (such as {ids[0]!r} in column {source.id!r}) is a problem's id"
        )
    found: list[list[str]] = [[] for _ in range(len(solvable))]
    for p, text in zip(owner, texts, strict=True):
        if p >= 0:
            found[p].append(text)
    counts = {
        "unknown_ids": int((~known).sum()),
        "unsolvable_ids": int((known & (owner < 0)).sum()),
        "without_trace": sum(not own for own in found),
    }
    return Given(found, counts)


def given_candidates(
    given: Given, problems: ProblemSet, bounds: Sequence[tuple[int, int]], extraction: str, timeout_s: float
) -> Iterator[Part]:
    """The given traces of the problems lo … hi−1 for each (lo, hi), verified against the gold answers."""
    ids, answers = problems.ids.to_pylist(), problems.answers.to_pylist()
    with Verifier(timeout_s) as verifier:
        for number, (lo, hi) in enumerate(bounds):
            entries = [(p, c, text) for p in range(lo, hi) for c, text in enumerate(given.texts_P[p])]
            columns = verified([text for _, _, text in entries], [answers[p] for p, _, _ in entries], extraction, verifier)
            columns |= {"problem_id": [ids[p] for p, _, _ in entries], "candidate": [c for _, c, _ in entries]}
            yield build(columns, Counter(given.counts) if number == 0 and lo == 0 else Counter())


def verified(texts: Sequence[str], golds: Sequence[str], extraction: str, verifier: Verifier) -> dict[str, Any]:
    """Columns text, extracted, verdict, correct, eligible, status of complete traces."""
    extracted = [extract(text, extraction) for text in texts]
    verdicts = [
        verdict if text.strip() else "empty"
        for text, verdict in zip(texts, verifier.verdicts(list(zip(extracted, golds, strict=True))), strict=True)
    ]
    right = [verdict in CORRECT for verdict in verdicts]
    return {
        "text": list(texts),
        "extracted": extracted,
        "verdict": verdicts,
        "correct": right,
        "eligible": right,
        "status": ["ok" if ok else "flagged" for ok in right],
    }
