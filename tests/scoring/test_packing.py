"""Rows without padding."""

from __future__ import annotations

import random

from qup.scoring.packing import pack


def test_every_sequence_once_and_no_row_overfull():
    rng = random.Random(0)
    lengths = [rng.randrange(1, 600) for _ in range(500)]
    rows = pack(lengths, 512)
    assert sorted(index for row in rows for index in row) == list(range(500))
    for row in rows:
        assert sum(lengths[index] for index in row) <= 512 or len(row) == 1
    assert sum(min(length, 512) for length in lengths) / (512 * len(rows)) > 0.9


def test_row_zero_gives_every_sequence_its_own():
    assert pack([3, 5, 4], 0) == [[1], [2], [0]]


def test_nothing():
    assert pack([], 512) == []
