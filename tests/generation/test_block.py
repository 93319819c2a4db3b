"""KV memory: growing, dropping rows, merging."""

import numpy as np
import pytest
import torch

from qup.generation.block import Block, Prefix, Row, merge

HEADS, DIM = 2, 3


def prefix(lengths, layers=2):
    """Keys are 1000·prompt + column, values their negatives, so that a column's owner can be read off."""
    longest = max(lengths)
    columns = 1000.0 * torch.arange(len(lengths))[:, None] + torch.arange(longest)
    keys = columns[:, None, :, None].expand(-1, HEADS, -1, DIM).clone()
    return Prefix([keys.clone() + 0.1 * layer for layer in range(layers)], [-keys.clone() for _ in range(layers)], list(lengths))


def block(lengths, n=2, limit=10, room=2):
    rows = [Row(prompt, sample, 0, length, limit) for prompt, length in enumerate(lengths) for sample in range(n)]
    return Block.from_prefix(rows, [prompt for prompt in range(len(lengths)) for _ in range(n)], prefix(lengths), room)


def write(block, value):
    """One step: appends a column holding `value` + row for every row."""
    block.reserve()
    for tensors, sign in ((block.keys, 1), (block.values, -1)):
        for tensor in tensors:
            tensor[: len(block), :, block.filled] = sign * (value + torch.arange(len(block)))[:, None, None].float()
    block.filled += 1


def seen(block, row, layer=0):
    """The columns a row attends to."""
    return block.keys[layer][row, 0, int(block.start_B[row]) : block.filled, 0].tolist()


def test_prompts_stand_flush_right_and_what_is_before_them_is_masked():
    made = block([3, 5])
    assert made.filled == 5
    assert seen(made, 0) == [0, 1, 2]
    assert seen(made, 3) == [1000, 1001, 1002, 1003, 1004]
    assert (made.keys[0][0, :, :2] == 0).all()
    mask = made.mask()
    assert mask.shape == (4, 1, 1, made.keys[0].shape[2])
    assert torch.isinf(mask[0, 0, 0, :2]).all()
    assert (mask[0, 0, 0, 2:] == 0).all()
    assert made.visible(6).tolist() == [[0, 0, 1, 1, 1, 1]] * 2 + [[1] * 6] * 2


def test_equal_prompts_need_no_mask():
    assert block([4, 4]).mask() is None


def test_columns_are_added_as_needed_and_never_beyond_the_most():
    made = block([3, 5], limit=10, room=2)
    for step in range(10):
        write(made, 100 * (step + 1))
        assert made.keys[0].shape[2] <= made.most
    assert seen(made, 1) == [0, 1, 2] + [100 * step + 1 for step in range(1, 11)]


def test_dropped_rows_are_replaced_by_the_last_ones():
    made = block([3, 5, 4])
    write(made, 100)
    kept = [(row.unit, row.sample, seen(made, at), seen(made, at, 1)) for at, row in enumerate(made.rows) if at not in (0, 3)]
    made.drop([0, 3])
    found = [(row.unit, row.sample, seen(made, at), seen(made, at, 1)) for at, row in enumerate(made.rows)]
    assert sorted(found) == sorted(kept)
    assert len(made) == 4


@pytest.mark.parametrize("gone", [[5], [0, 1, 2], [1, 3, 5], [0, 1, 2, 3, 4], [2, 4, 5]])
def test_memory_is_given_back_once_half_is_idle(gone):
    made = block([3, 5, 4])
    write(made, 100)
    kept = sorted(seen(made, at) for at in range(6) if at not in gone)
    made.drop(gone)
    assert sorted(seen(made, at) for at in range(len(made))) == kept
    if len(gone) >= 3:
        assert made.keys[0].shape[0] == 6 - len(gone)
        assert int(made.start_B.min()) == 0
    write(made, 200)
    assert seen(made, 0)[-1] == 200


def test_merging_keeps_every_rows_columns():
    first, second = block([3, 5]), block([7, 2])
    write(first, 100)
    write(first, 200)
    write(second, 300)
    wanted = [seen(first, at, 1) for at in range(4)] + [seen(second, at, 1) for at in range(4)]
    merged = merge(first, second, 2)
    assert [seen(merged, at, 1) for at in range(8)] == wanted
    assert merged.filled == 8
    assert not first.keys
    write(merged, 400)
    assert seen(merged, 0)[-1] == 400


def test_merging_leaves_out_columns_that_nobody_uses_any_more():
    first, second = block([3, 9]), block([4, 4])
    first.drop([2, 3])
    first.start_B = np.array(first.start_B)
    merged = merge(first, second, 2)
    assert merged.filled == 4
    assert seen(merged, 0) == [0, 1, 2]
