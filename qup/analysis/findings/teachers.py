"""What each teacher of a pool is like, and what its traces teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qup.analysis.results.arms import Run
from qup.analysis.results.cells import first_right
from qup.analysis.results.shelf import Shelf
from qup.analysis.statistics.estimates import Estimate
from qup.analysis.statistics.means import mean_of


@dataclass
class Teacher:
    """Of one teacher: figures of its own arm where there is one, else of its traces in the largest stream that holds some."""

    right: float | None = None
    share: dict[str, float] = field(default_factory=dict)
    """By stream of several teachers: the part of its traces that this one wrote."""
    reward: Estimate | None = None
    nll: float | None = None
    ratio: float | None = None
    tokens: float | None = None
    totals: dict[str, list[float]] = field(default_factory=dict)
    """By objective: what its own arm came to, one figure a replicate."""


def teachers_of(runs: Sequence[Run], reward: str, shelf: Shelf) -> dict[str, dict[str, Teacher]]:
    """By student and name, for students whose streams hold the traces of two teachers or more."""
    made = {
        student: _of_student([run for run in runs if run.student == student], reward, shelf)
        for student in dict.fromkeys(run.student for run in runs)
    }
    return {student: found for student, found in made.items() if len(found) > 1}


def _of_student(runs: Sequence[Run], reward: str, shelf: Shelf) -> dict[str, Teacher]:
    found: dict[str, Teacher] = {}
    seen: set[str] = set()
    for run in runs:
        cell = run.cell
        key = cell.key("stream")
        artifact = shelf.of(cell, "stream")
        if key is None or artifact is None:
            continue
        counts: dict[str, int] = artifact.metrics.get("teachers") or {}
        for name in counts:
            own = found.setdefault(name, Teacher())
            if len(counts) > 1:
                own.share[run.arm.label] = counts[name] / sum(counts.values())
        if len(counts) == 1:
            total = shelf.metrics(cell, "evaluate").get("total")
            if isinstance(total, int | float):
                found[next(iter(counts))].totals.setdefault(run.setting.label, []).append(float(total))
        if key[1] not in seen:
            seen.add(key[1])
            for name, right in first_right(cell, shelf).items():
                if name in found:
                    found[name].right = right
            _describe(run, found, counts, reward, shelf)
    return found


def _describe(run: Run, found: dict[str, Teacher], counts: dict[str, int], reward: str, shelf: Shelf) -> None:
    """Figures of each teacher's traces in this stream, unless an arm of its own has given them."""
    stream, scored, passed = (shelf.of(run.cell, *stage) for stage in (("stream",), ("reward", reward), ("perplexity",)))
    table = shelf.table(stream, "stream", ("teacher",)) if stream is not None else None
    if table is None:
        return
    scores = shelf.table(scored, "scores", ("score", "fits")) if scored is not None else None
    totals = shelf.table(passed, "totals", ("nll", "rank", "n_tokens")) if passed is not None else None
    teacher = np.asarray(table["teacher"].to_pylist(), object)
    for name in counts:
        one, mine = found[name], teacher == name
        if one.tokens is not None and len(counts) > 1:
            continue
        if scores is not None and scores.num_rows == len(mine):
            one.reward = mean_of(np.where(np.asarray(scores["fits"]), np.asarray(scores["score"], float), np.nan)[mine])
        if totals is not None and totals.num_rows == len(mine):
            nll, rank, tokens = (np.asarray(totals[column], float)[mine] for column in ("nll", "rank", "n_tokens"))
            one.nll = float(np.sum(nll) / np.sum(tokens)) if tokens.sum() else None
            one.ratio = float(np.sum(rank / np.maximum(tokens, 1)) / np.sum(nll / np.maximum(tokens, 1))) if nll.sum() else None
            one.tokens = float(tokens.mean())
