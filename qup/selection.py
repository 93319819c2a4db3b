"""Which of a problem's candidates enter the stream. Everything here is vectorised over problems.

Axes: N rows (candidates, sorted by problem), P problems. `Groups` says which rows belong to one problem;
every rule gives one row number for each problem, and is asked again of the rest where several are kept. Draws are seeded by problem id alone, so that a choice
does not depend on which other problems are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qup.draws import choose


@dataclass(frozen=True)
class Groups:
    """Rows of one problem lie side by side: problem p has rows start_P[p] … start_P[p] + count_P[p] − 1."""

    start_P: np.ndarray
    count_P: np.ndarray
    problem_N: np.ndarray
    """Group number of each row."""

    @classmethod
    def of(cls, problem_N: np.ndarray) -> Groups:
        """Groups of equal neighbours in an ascending array of problem numbers."""
        starts = np.flatnonzero(np.r_[True, problem_N[1:] != problem_N[:-1]]) if len(problem_N) else np.zeros(0, np.int64)
        counts = np.diff(np.r_[starts, len(problem_N)])
        return cls(starts, counts, np.repeat(np.arange(len(starts)), counts))

    def __len__(self) -> int:
        return len(self.start_P)

    def sums(self, value_N: np.ndarray) -> np.ndarray:
        """Sum over each problem's rows."""
        return np.bincount(self.problem_N, weights=value_N, minlength=len(self)) if len(self) else np.zeros(0)

    def largest(self, value_N: np.ndarray) -> np.ndarray:
        """Maximum over each problem's rows."""
        return np.maximum.reduceat(value_N, self.start_P) if len(self) else np.zeros(0)


def random_rows(groups: Groups, ids: Sequence[str], seed: int) -> np.ndarray:
    """One row a problem, all equally likely; the draw that `solvable` keeps a native trace by."""
    offsets = np.fromiter((choose(seed, name, int(n)) for name, n in zip(ids, groups.count_P, strict=True)), np.int64, len(groups))
    return groups.start_P + offsets


def highest_rows(groups: Groups, value_N: np.ndarray, ids: Sequence[str], seed: int | None) -> np.ndarray:
    """The row of highest value; ties by seeded draw, or to the first row where `seed` is None."""
    return drawn_rows(groups, value_N == groups.largest(value_N)[groups.problem_N], ids, seed)


def drawn_rows(groups: Groups, member_N: np.ndarray, ids: Sequence[str], seed: int | None) -> np.ndarray:
    """One of the marked rows of each problem by seeded draw (`seed` None: the first); each problem has a marked row."""
    rows = np.flatnonzero(member_N)
    owner = groups.problem_N[rows]
    first = np.searchsorted(owner, np.arange(len(groups)))
    count = np.bincount(owner, minlength=len(groups))
    offsets = np.zeros(len(groups), np.int64)
    if seed is not None:
        for p in np.flatnonzero(count > 1).tolist():
            offsets[p] = choose(seed, (ids[p], "tie"), int(count[p]))
    return rows[first + offsets]


def deviations(groups: Groups, value_N: np.ndarray) -> np.ndarray:
    """Value minus the mean over its problem's scored rows; NaN stays NaN."""
    there = ~np.isnan(value_N)
    total = groups.sums(np.where(there, value_N, 0.0))
    count = groups.sums(there.astype(float))
    with np.errstate(invalid="ignore", divide="ignore"):
        return value_N - (total / count)[groups.problem_N]


def pooled_sd(groups: Groups, value_N: np.ndarray) -> float:
    """Standard deviation within problems, pooled over all: sqrt(Σ(x − x̄_p)² / Σ(k_p − 1)).

    0 where no problem has two scored rows, and where the spread is rounding alone.
    """
    off = deviations(groups, value_N)
    there = ~np.isnan(off)
    freedom = int(there.sum()) - len(np.unique(groups.problem_N[there]))
    if freedom <= 0:
        return 0.0
    spread = float(np.sqrt(np.sum(off[there] ** 2) / freedom))
    return spread if spread > 1e-12 * float(np.max(np.abs(value_N[there]))) else 0.0


def joint_value(groups: Groups, reward_N: np.ndarray, cost_N: np.ndarray, weight: float) -> np.ndarray:
    """(r − r̄_p)/s_r − λ·(c − c̄_p)/s_c with pooled s; a term whose s is 0 is dropped. −inf where a score is NaN."""
    missing = np.isnan(reward_N) | np.isnan(cost_N)
    reward_N, cost_N = np.where(missing, np.nan, reward_N), np.where(missing, np.nan, cost_N)
    value = np.zeros(len(reward_N))
    if spread := pooled_sd(groups, reward_N):
        value = value + deviations(groups, reward_N) / spread
    if weight and (spread := pooled_sd(groups, cost_N)):
        value = value - weight * deviations(groups, cost_N) / spread
    return np.where(missing, -np.inf, value)


def pareto_rows(groups: Groups, reward_N: np.ndarray, cost_N: np.ndarray) -> np.ndarray:
    """Marks the rows that no other of the problem beats in both: higher reward and lower cost.

    Rows with a NaN score are never marked, unless the problem has no other.
    """
    missing = np.isnan(reward_N) | np.isnan(cost_N)
    beaten = np.zeros(len(reward_N), bool)
    for shift in range(1, int(groups.count_P.max(initial=1))):
        rows = np.flatnonzero(groups.problem_N[shift:] == groups.problem_N[:-shift]) if shift < len(reward_N) else np.zeros(0, np.int64)
        first, second = rows, rows + shift
        beaten[first] |= (reward_N[second] > reward_N[first]) & (cost_N[second] < cost_N[first])
        beaten[second] |= (reward_N[first] > reward_N[second]) & (cost_N[first] < cost_N[second])
    front = ~beaten & ~missing
    return front | (groups.sums(front) == 0)[groups.problem_N]


def within_correlation(groups: Groups, first_N: np.ndarray, second_N: np.ndarray) -> float | None:
    """Pearson correlation of the deviations from the problems' means; None where one of them does not vary."""
    missing = np.isnan(first_N) | np.isnan(second_N)
    first = deviations(groups, np.where(missing, np.nan, first_N))[~missing]
    second = deviations(groups, np.where(missing, np.nan, second_N))[~missing]
    scale = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return float(np.sum(first * second) / scale) if scale > 1e-300 else None


def select(
    rule: str,
    groups: Groups,
    ids: Sequence[str],
    seed: int,
    *,
    reward_N: np.ndarray | None = None,
    cost_N: np.ndarray | None = None,
    chars_N: np.ndarray | None = None,
    weight: float = 1.0,
    keep: int = 1,
) -> np.ndarray:
    """Row numbers of the chosen candidates, up to `keep` of each problem, int64: by problem, in the order of choice.

    `reward_N` higher is better; of `cost_N`, a measure turned so, and of `chars_N`, characters, lower is better. A NaN
    score means that the trace did not fit its scorer: it is chosen only where none of the problem fits.
    """

    def lowest(value_N: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(value_N), -np.inf, -value_N)

    def given(value_N: np.ndarray | None) -> np.ndarray:
        if value_N is None:
            raise ValueError(f"selection {rule} wants scores that it was not given")
        return np.asarray(value_N, float)

    def highest(value_N: np.ndarray, draws: int | None = seed) -> np.ndarray:
        return repeated(groups, ids, keep, lambda rest, rows, names: highest_rows(rest, value_N[rows], names, draws))

    match rule:
        case "random":
            return repeated(groups, ids, keep, lambda rest, rows, names: random_rows(rest, names, seed))
        case "shortest":
            return highest(lowest(given(chars_N)), None)
        case "reward":
            return highest(lowest(-given(reward_N)))
        case "perplexity" | "rank_surprisal" | "measure":
            return highest(lowest(given(cost_N)))
        case "joint":
            return highest(joint_value(groups, given(reward_N), given(cost_N), weight))
        case "pareto":
            reward_N, cost_N = given(reward_N), given(cost_N)

            def nondominated(rest: Groups, rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
                return drawn_rows(rest, pareto_rows(rest, reward_N[rows], cost_N[rows]), names, seed)

            return repeated(groups, ids, keep, nondominated)
        case _:
            raise ValueError(f"selection {rule!r} is none")


def repeated(groups: Groups, ids: Sequence[str], keep: int, pick: Callable[[Groups, np.ndarray, Sequence[str]], np.ndarray]) -> np.ndarray:
    """Up to `keep` rows of each problem: `pick` is asked for one, then for one of the rest, and so on.

    `pick(rest, rows, names)` gives a position in `rows` for each problem of `rest`; `rows` are the row numbers left.
    """
    left_N = np.ones(len(groups.problem_N), bool)
    taken = []
    for _ in range(keep):
        rows = np.flatnonzero(left_N)
        owner_N = groups.problem_N[rows]
        rest = Groups.of(owner_N)
        if not len(rest):
            break
        chosen = rows[pick(rest, rows, [ids[p] for p in owner_N[rest.start_P].tolist()])]
        left_N[chosen] = False
        taken.append(chosen)
    whole = np.concatenate(taken) if taken else np.zeros(0, np.int64)
    return whole[np.argsort(groups.problem_N[whole], kind="stable")]
