"""Traces that are already there: the data set's own solutions, or a file of traces by problem id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from qup.answers.extraction import extract
from qup.answers.verifier import CORRECT, Verifier
from qup.candidates.problems import ProblemSet
from qup.candidates.table import DATASET, Part, build
from qup.config.schema import Source
from qup.data.decontamination import folded
from qup.data.traces import read_traces
from qup.errors import InputError
from qup.store import Artifact, rows


@dataclass(frozen=True)
class Given:
    """Texts of each problem, in the file's order."""

    texts_P: list[list[str]]
    counts: dict[str, int]
    teachers_P: list[list[str]] | None = None
    """Who wrote each; None: the data set's own."""


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
    """Traces of files of jsonl or parquet; those of no problem, and of problems the student never solved, are counted."""
    given = read_traces(source)
    named = source.path or ", ".join(source.files)
    if not given.names:
        raise InputError(f"source.path={named}: the file holds no trace")
    table = problems.table("problems", ["problem_id", "question"])
    names = pa.array(given.names)
    if source.question:
        told, solved = (pa.array([folded(text) for text in column.to_pylist()]) for column in (table["question"], solvable.questions))
        column, what = source.question, "text"
    else:
        told, solved, column, what = table["problem_id"], solvable.ids, source.id, "id"
    owner, known = rows.positions(names, solved), rows.positions(names, told) >= 0
    if not known.any():
        raise InputError(
            f"source.path={named}: none of its {len(names)} {what}s (such as {given.names[0]!r} in column {column!r}) is a problem's {what}"
        )
    texts: list[list[str]] = [[] for _ in range(len(solvable))]
    teachers: list[list[str]] = [[] for _ in range(len(solvable))]
    for p, text, teacher in zip(owner, given.texts, given.teachers, strict=True):
        if p >= 0:
            texts[p].append(text)
            teachers[p].append(teacher)
    counts = {
        f"unknown_{what}s": int((~known).sum()),
        f"unsolvable_{what}s": int((known & (owner < 0)).sum()),
        "without_trace": sum(not own for own in texts),
    }
    return Given(texts, counts, teachers)


def given_candidates(
    given: Given, problems: ProblemSet, bounds: Sequence[tuple[int, int]], extraction: str, timeout_s: float
) -> Iterator[Part]:
    """The given traces of the problems lo … hi−1 for each (lo, hi), verified against the gold answers."""
    ids, answers = problems.ids.to_pylist(), problems.answers.to_pylist()
    with Verifier(timeout_s) as verifier:
        for number, (lo, hi) in enumerate(bounds):
            entries = [(p, c, text) for p in range(lo, hi) for c, text in enumerate(given.texts_P[p])]
            columns = verified([text for _, _, text in entries], [answers[p] for p, _, _ in entries], extraction, verifier)
            teachers = [given.teachers_P[p][c] if given.teachers_P else DATASET for p, c, _ in entries]
            columns |= {"problem_id": [ids[p] for p, _, _ in entries], "candidate": [c for _, c, _ in entries], "teacher": teachers}
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
