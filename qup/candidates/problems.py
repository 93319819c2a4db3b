"""The problems a pool covers, and the traces that an Oracle is handed for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from qup.draws import choose
from qup.store import Artifact, rows


@dataclass(frozen=True)
class ProblemSet:
    """The solvable problems in order. Axis P."""

    ids: pa.ChunkedArray
    questions: pa.ChunkedArray
    answers: pa.ChunkedArray
    """Gold answers."""
    kept: np.ndarray
    """The sample that slm_rft keeps."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, order: np.ndarray) -> ProblemSet:
        picked = pa.array(order)
        return ProblemSet(self.ids.take(picked), self.questions.take(picked), self.answers.take(picked), self.kept[order])


def solvable_problems(inputs: Mapping[str, Artifact]) -> ProblemSet:
    """Solvable problems with their questions and gold answers; raises InputError where one is not among the problems."""
    solvable = inputs["solvable"].table("solvable", ["problem_id", "kept"])
    problems = inputs["problems"].table("problems", ["problem_id", "question", "answer"])
    picked = pa.array(rows.owners(solvable["problem_id"], problems["problem_id"], "is solvable, and is not among the problems"))
    return ProblemSet(
        solvable["problem_id"], problems["question"].take(picked), problems["answer"].take(picked), np.asarray(solvable["kept"])
    )


@dataclass(frozen=True)
class InputTrace:
    """A verified trace that an Oracle is to work on; `candidate` is its number in its own pool."""

    problem: int
    candidate: int
    text: str


class Traces:
    """Verified traces of the problems, by problem: the student's rollouts, or the candidates of another pool."""

    def __init__(self, artifact: Artifact, problems: ProblemSet, verdicts: Artifact | None = None) -> None:
        """`verdicts`: those of rollouts; without them all rollouts count, of which only the kept ones may be read."""
        self.artifact = artifact
        self.name, self.number = ("rollouts", "sample") if artifact.has("rollouts.parquet") else ("candidates", "candidate")
        table = artifact.table(self.name, ["problem_id", self.number])
        owner = rows.positions(table["problem_id"], problems.ids)
        judged = verdicts.table("verdicts", ["eligible"]) if verdicts else None
        judged = artifact.table("candidates", ["eligible"]) if self.name == "candidates" else judged
        row = np.flatnonzero((owner >= 0) & (np.asarray(judged["eligible"]) if judged is not None else True))
        order = np.argsort(owner[row], kind="stable")
        self.row, self.owner = row[order], owner[row][order]
        self.candidate = np.asarray(table[self.number])[self.row]

    def all(self) -> np.ndarray:
        """Every verified trace."""
        return np.arange(len(self.row))

    def kept(self, problems: ProblemSet) -> np.ndarray:
        """The one that slm_rft keeps of each problem."""
        return np.flatnonzero(self.candidate == problems.kept[self.owner])

    def drawn(self, problems: ProblemSet, seed: int) -> np.ndarray:
        """One of each problem, by the draw that `solvable` makes."""
        ids = problems.ids.to_pylist()
        starts = np.searchsorted(self.owner, np.arange(len(problems)))
        counts = np.bincount(self.owner, minlength=len(problems))
        return np.array([starts[p] + choose(seed, ids[p], int(counts[p])) for p in np.flatnonzero(counts)], np.int64)

    def read(self, picked: np.ndarray, bounds: Sequence[tuple[int, int]]) -> Iterator[list[InputTrace]]:
        """The picked traces of the problems lo … hi−1, for each (lo, hi) in ascending order."""
        picked = np.sort(picked)
        groups = [picked[np.searchsorted(self.owner[picked], lo) : np.searchsorted(self.owner[picked], hi)] for lo, hi in bounds]
        sorted_groups = [group[np.argsort(self.row[group], kind="stable")] for group in groups]
        tables = rows.pieces(self.artifact, self.name, [self.row[group] for group in sorted_groups], ["text"])
        for group, table in zip(sorted_groups, tables, strict=True):
            texts = table["text"].to_pylist()
            yield [InputTrace(int(self.owner[i]), int(self.candidate[i]), text) for i, text in zip(group, texts, strict=True)]


def kept_rollouts(rollouts: Artifact, solvable: pa.Table, columns: list[str], verdicts: Artifact | None = None) -> pa.Table:
    """The kept rollout of each of some solvable problems (columns problem_id, kept), or its verdict, in the rollouts' order."""
    keys = pa.table({"problem_id": solvable["problem_id"], "candidate": solvable["kept"]})
    known = rollouts.table("rollouts", ["problem_id", "sample"]).rename_columns(["problem_id", "candidate"])
    kept_N = np.sort(rows.match(keys, known))
    return rows.take(verdicts, "verdicts", kept_N, columns) if verdicts else rows.take(rollouts, "rollouts", kept_N, columns)
