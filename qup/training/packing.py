"""Rows out of examples: how many, how long, and who lies beside whom. Pure functions of the lengths, so every rank agrees.

A packed step is a makespan problem: with k rows a rank, find the shortest row length for which the step's examples fit
(MULTIFIT, Coffman et al. 1978: best-fit decreasing inside a binary search), and take the k that costs least.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

ALIGN = 8
"""Row lengths are multiples of this."""

Row = tuple[int, ...]
"""Positions of the examples that share a row; empty for a dummy."""


@dataclass(frozen=True)
class Layout:
    """One optimizer step as rows of `length` tokens; len(rows) is a multiple of the number of ranks."""

    rows: tuple[Row, ...]
    length: int


@dataclass(frozen=True)
class Cost:
    """Relative cost of a row of R tokens: R · (linear + quadratic · R)."""

    linear: float = 1.0
    quadratic: float = 0.0

    def of(self, n_rows: int, length: int) -> float:
        return n_rows * length * (self.linear + self.quadratic * length)


def align(length: int) -> int:
    return -(-length // ALIGN) * ALIGN


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: rows of positions, none longer than `capacity`. Ties keep the order of `lengths`."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for i in order:
        at = bisect.bisect_left(room, (lengths[i], -1))
        if at == len(room):
            rows.append([i])
            bisect.insort(room, (capacity - lengths[i], len(rows) - 1))
        else:
            left, row = room.pop(at)
            rows[row].append(i)
            bisect.insort(room, (left - lengths[i], row))
    return rows


def pack(lengths: Sequence[int], world_size: int, longest_row: int, cost: Cost, fixed: bool = False) -> Layout:
    """The step's examples in rows for `world_size` ranks; with `fixed` every row is `longest_row` tokens long.

    Where one example is longer than `longest_row`, rows grow to hold it.
    """
    longest_row = max(longest_row, align(max(lengths)))
    if fixed:
        return _layout(best_fit(lengths, longest_row), world_size, longest_row)
    total = sum(lengths)
    fewest = max(1, -(-total // (longest_row * world_size)))
    most = max(fewest, -(-len(lengths) // world_size))
    best: Layout | None = None
    for k in _spread(fewest, most):
        layout = _shortest(lengths, k * world_size, longest_row, world_size)
        if layout is not None and (best is None or _cost(layout, cost) < _cost(best, cost)):
            best = layout
    return best or _layout(best_fit(lengths, longest_row), world_size, longest_row)


def pad(lengths: Sequence[int], world_size: int, micro_batch: int) -> list[list[tuple[Row, int]]]:
    """Examples one a row, of similar length side by side: micro-batches[i][rank] = (positions, length).

    Every rank gets the same number of micro-batches; an empty one is a dummy.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    cut = [tuple(order[start : start + micro_batch]) for start in range(0, len(order), micro_batch)]
    cut += [()] * (-len(cut) % world_size)
    sized = [(rows, align(max((lengths[i] for i in rows), default=1))) for rows in cut]
    return [sized[start : start + world_size] for start in range(0, len(sized), world_size)]


def _shortest(lengths: Sequence[int], n_rows: int, longest_row: int, world_size: int) -> Layout | None:
    low = max(max(lengths), -(-sum(lengths) // n_rows))
    low, high = align(low) // ALIGN, longest_row // ALIGN
    found: list[list[int]] | None = None
    at = high
    if low > high:
        return None
    high = min(high, max(low, -(-low * 4 // 3)))
    while low <= high:
        middle = (low + high) // 2
        rows = best_fit(lengths, middle * ALIGN)
        if len(rows) <= n_rows:
            found, at, high = rows, middle, middle - 1
        else:
            low = middle + 1
    return None if found is None else _layout(found, world_size, at * ALIGN)


def _layout(rows: list[list[int]], world_size: int, length: int) -> Layout:
    whole = [tuple(row) for row in rows] + [()] * (-len(rows) % world_size)
    return Layout(tuple(whole), length)


def _cost(layout: Layout, cost: Cost) -> float:
    return cost.of(len(layout.rows), layout.length)


def _spread(fewest: int, most: int, points: int = 12) -> list[int]:
    """`fewest` … `most`, thinned out geometrically."""
    if most - fewest < points:
        return list(range(fewest, most + 1))
    ratio = (most / fewest) ** (1 / (points - 1))
    return sorted({min(most, max(fewest, round(fewest * ratio**i))) for i in range(points)})
