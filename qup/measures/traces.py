"""What measures read: sums over each trace's tokens. Axis N: traces; all of a problem's traces bear one number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Traces:
    """Arrays [N], float64 unless said. The stop token is left out of every sum; NaN stands where nothing was measured."""

    problem_N: np.ndarray
    """int64: equal for the candidates of one problem."""
    tokens_N: np.ndarray
    steps_N: np.ndarray
    nll_N: np.ndarray
    """Nats, summed."""
    rank_N: np.ndarray
    """Clipped ranks, summed."""
    brier_N: np.ndarray
    """Brier scores over the whole vocabulary, summed."""
    brier_top_N: np.ndarray
    """The same over the likeliest tokens alone, renormalised."""
    first_N: np.ndarray
    """How many tokens are among the first of a step."""
    first_nll_N: np.ndarray
    """Their nats, summed."""
    question_tokens_N: np.ndarray
    question_nll_N: np.ndarray
    aa_N: np.ndarray
    """‖μ_A‖²: μ_A is the mean of the response tokens' normalised activations."""
    aq_N: np.ndarray
    """μ_A · μ_Q, μ_Q over the question's tokens."""
    reward_N: np.ndarray
    """NaN where no reward was asked for, or the trace did not fit."""

    @classmethod
    def of(cls, problem_N: np.ndarray, columns: Mapping[str, np.ndarray]) -> Traces:
        """From the columns that are there; the others are NaN."""
        n = len(problem_N)
        nothing = np.full(n, np.nan)
        given = {entry.name: np.asarray(columns.get(entry.name, nothing), float) for entry in fields(cls) if entry.name != "problem_N"}
        return cls(problem_N=np.asarray(problem_N, np.int64), **given)

    def __len__(self) -> int:
        return len(self.problem_N)

    def take(self, index: np.ndarray) -> Traces:
        return Traces(**{entry.name: getattr(self, entry.name)[index] for entry in fields(self)})


def ratio(above_N: np.ndarray, below_N: np.ndarray) -> np.ndarray:
    """above / below; NaN where below is 0."""
    above_N, below_N = np.asarray(above_N, float), np.asarray(below_N, float)
    return np.divide(above_N, below_N, out=np.full(np.broadcast_shapes(above_N.shape, below_N.shape), np.nan), where=below_N != 0)
