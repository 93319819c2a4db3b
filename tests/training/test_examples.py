from __future__ import annotations

import math

import pyarrow as pa
import pytest

from qup.errors import InputError
from qup.training.examples import batches_of, encode_stream, order_of
from tests.training.world import stream_table


def encode(rows: list[tuple[str, str, str]], max_length: int = 10, max_dropped: float = 1.0):  # type: ignore[no-untyped-def]
    """A character is a token; the stop token is 0."""
    return encode_stream(
        stream_table(rows), lambda text: [ord(c) for c in text], lambda text: [*map(ord, text), 0], max_length, max_dropped
    )


def test_an_example_is_prompt_response_and_stop() -> None:
    example = encode([("a", "qq", "rrr")]).kept[0]
    assert example.ids.tolist() == [113, 113, 114, 114, 114, 0]
    assert (example.n_prompt, example.n_targets, example.truncated) == (2, 4, False)


def test_long_examples_are_cut_on_the_right_and_counted() -> None:
    found = encode([("a", "qq", "r" * 20), ("b", "qq", "r" * 7), ("c", "qq", "r" * 8)])
    assert [example.length for example in found.kept] == [10, 10, 10]
    assert [example.truncated for example in found.kept] == [True, False, True]
    assert found.n_truncated == 2


def test_examples_without_a_response_are_dropped_by_name() -> None:
    found = encode([("a", "q" * 10, "r"), ("b", "qq", "r"), ("c", "q" * 30, "r")])
    assert found.dropped == ("a", "c") and [example.problem_id for example in found.kept] == ["b"]
    assert found.n_truncated == 2


def test_too_many_dropped_is_an_error() -> None:
    with pytest.raises(
        InputError, match=r"max_length=10: 1 of 2 examples have no response token left \(a\); trainer.max_dropped=0.1 allows 10 %"
    ):
        encode([("a", "q" * 10, "r"), ("b", "qq", "r")], max_dropped=0.1)


def test_an_empty_stream_is_an_error() -> None:
    with pytest.raises(InputError, match="no rows"):
        encode([])


def test_the_order_is_of_stream_rows_seed_and_epoch() -> None:
    assert order_of(50, 0, 0).tolist() == order_of(50, 0, 0).tolist()
    assert order_of(50, 0, 0).tolist() != order_of(50, 0, 1).tolist() != order_of(50, 1, 0).tolist()
    assert sorted(order_of(50, 0, 0)) == list(range(50))


def test_a_step_holds_the_same_problems_in_every_arm_though_one_lost_some() -> None:
    whole = encode([(f"p{i}", "qq", "r") for i in range(20)])
    other = encode([(f"p{i}", "q" * (30 if i in (3, 11) else 1), "rrrr") for i in range(20)])
    steps = [[{example.problem_id for example in batch} for batch in batches_of(found, 4, 2, 7, False, None)] for found in (whole, other)]
    assert [batch - {"p3", "p11"} for batch in steps[0]] == steps[1]


@pytest.mark.parametrize(("drop_last", "max_steps", "sizes"), [(False, None, [4, 4, 2] * 2), (True, None, [4, 4] * 2), (False, 2, [4, 4])])
def test_batches(drop_last: bool, max_steps: int | None, sizes: list[int]) -> None:
    found = encode([(f"p{i}", "qq", "r") for i in range(10)])
    batches = batches_of(found, 4, 2, 0, drop_last, max_steps)
    assert [len(batch) for batch in batches] == sizes


def test_a_batch_larger_than_the_stream_with_drop_last_is_an_error() -> None:
    with pytest.raises(InputError, match=r"trainer\.batch_size=8"):
        batches_of(encode([("a", "qq", "r")]), 8, 1, 0, True, None)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    table = stream_table([("a", "q", "r"), ("b", "q", "r")])
    table = table.set_column(table.schema.get_field_index("weight"), "weight", pa.array([1.0, weight]))
    with pytest.raises(InputError, match=r"row 2 \(problem b\) has weight"):
        encode_stream(table, lambda question: [3], lambda text: [4, 5], 16, 0.0)


def test_weights_come_from_the_stream_and_count_by_tokens() -> None:
    table = stream_table([("a", "q", "r"), ("b", "q", "r")])
    table = table.set_column(table.schema.get_field_index("weight"), "weight", pa.array([0.25, 2.0]))
    kept = encode_stream(table, lambda question: [3], lambda text: [4, 5, 6], 16, 0.0).kept
    assert [example.mass for example in kept] == [0.75, 6.0]
