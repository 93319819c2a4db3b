"""Which problems a mean reward is taken over: those whose trace has a score in every arm, so that means can be compared.

A trace that does not fit the reward model's context, or whose score is no finite number, leaves its problem out of every
arm's mean; how many are left out is told beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import Streams, StreamScores
from qup.analysis.statistics.estimates import Estimate
from qup.analysis.statistics.means import mean_of, unknown
from qup.study import Cell


@dataclass(frozen=True)
class Fitting:
    """By (key of the aligned problems, reward model): whether a problem's traces have a score in every stream, P."""

    scored_P: Mapping[tuple[str, str], np.ndarray]

    @classmethod
    def of(cls, cells: Sequence[Cell], streams: Streams) -> Fitting:
        """From the streams of all cells; streams over the same aligned problems share their order."""
        found: dict[tuple[str, str], np.ndarray] = {}
        for cell in cells:
            scores = streams.of(cell)
            for name, reward_P in (scores.reward_P if scores is not None else {}).items():
                place = (_aligned(cell), name)
                mine = np.isfinite(reward_P)
                found[place] = found[place] & mine if place in found else mine
        return cls(found)

    def mean(self, cell: Cell, scores: StreamScores | None, name: str) -> Estimate:
        """Mean score of a cell's stream over the problems that count in every arm."""
        if scores is None or name not in scores.reward_P:
            return unknown("no scores")
        return mean_of(np.where(self.scored_P[_aligned(cell), name], scores.reward_P[name], np.nan))

    def left_out(self, cell: Cell, name: str) -> int:
        """Problems that count in no arm's mean."""
        scored_P = self.scored_P.get((_aligned(cell), name))
        return 0 if scored_P is None else int((~scored_P).sum())


def cell_means(cells: Sequence[Cell], shelf: Shelf) -> dict[tuple[str, str], tuple[float | None, int]]:
    """By (cell's label, reward model): the mean that can be compared, and the problems left out of it.

    Scores are read only where a stream lacks some; else the mean that its stage noted is the same.
    """
    metrics = {(cell.label, name): shelf.metrics(cell, "reward", name) for cell in cells for name in cell.stages.get("reward", {})}
    lacking = {
        _aligned(cell)
        for cell in cells
        for name in cell.stages.get("reward", {})
        if metrics[cell.label, name].get("n_unfit") or metrics[cell.label, name].get("n_invalid")
    }
    made: dict[tuple[str, str], tuple[float | None, int]] = {place: (found.get("mean"), 0) for place, found in metrics.items()}
    affected = [cell for cell in cells if _aligned(cell) in lacking]
    if affected:
        streams = Streams(shelf)
        fitting = Fitting.of(affected, streams)
        for cell in affected:
            for name in cell.stages.get("reward", {}):
                value = fitting.mean(cell, streams.of(cell), name).value
                made[cell.label, name] = (float(value) if np.isfinite(value) else None, fitting.left_out(cell, name))
    return made


def _aligned(cell: Cell) -> str:
    return str(cell.stages.get("aligned", ""))
