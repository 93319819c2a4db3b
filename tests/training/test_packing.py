from __future__ import annotations

import random

import pytest

from qup.training.packing import ALIGN, Cost, best_fit, pack, pad


def lengths_like_traces(n: int, seed: int, longest: int = 2048) -> list[int]:
    draw = random.Random(seed)
    return [min(longest, max(50, int(draw.lognormvariate(6.3, 0.5)))) for _ in range(n)]


@pytest.mark.parametrize(("n", "world_size", "row"), [(1, 1, 64), (5, 8, 64), (16, 1, 512), (16, 2, 512), (256, 8, 4096), (97, 3, 2048)])
@pytest.mark.parametrize("fixed", [True, False])
def test_every_example_lies_in_one_row_that_holds_it(n: int, world_size: int, row: int, fixed: bool) -> None:
    lengths = [min(length, row) for length in lengths_like_traces(n, seed=n)]
    layout = pack(lengths, world_size, row, Cost(), fixed)
    assert sorted(i for line in layout.rows for i in line) == list(range(n))
    assert all(sum(lengths[i] for i in line) <= layout.length for line in layout.rows)
    assert len(layout.rows) % world_size == 0
    assert layout.length <= max(row, max(lengths) + ALIGN)
    assert not fixed or layout.length == row


def test_packing_is_a_function_of_the_lengths() -> None:
    lengths = lengths_like_traces(64, 1)
    assert pack(lengths, 4, 4096, Cost()) == pack(list(lengths), 4, 4096, Cost())


def test_best_fit_takes_the_fullest_row_with_room() -> None:
    assert best_fit([6, 5, 4, 3], 10) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_256_examples_on_8_ranks_fill_their_rows(seed: int) -> None:
    lengths = lengths_like_traces(256, seed)
    layout = pack(lengths, 8, 4096, Cost())
    filled = [row for row in layout.rows if row]
    assert sum(lengths) / (len(layout.rows) * layout.length) >= 0.95
    assert sum(lengths) / (len(filled) * layout.length) >= 0.97


def test_where_pairs_cost_rows_are_shorter() -> None:
    lengths = [50] * 64
    assert pack(lengths, 1, 512, Cost(1.0, 0.1)).length < pack(lengths, 1, 512, Cost(1.0, 0.0)).length


def test_an_example_longer_than_the_bound_still_gets_a_row() -> None:
    assert pack([700, 30], 1, 512, Cost()).length >= 700


def test_padding_groups_by_length_and_gives_ranks_equal_turns() -> None:
    turns = pad([10, 100, 11, 99, 12, 98, 13], world_size=2, micro_batch=2)
    assert turns == [[((1, 3), 104), ((5, 6), 104)], [((4, 2), 16), ((0,), 16)]]
    assert [len(turn) for turn in pad([5] * 3, 2, 2)] == [2]
    assert pad([5], 2, 1)[0][1][0] == ()
