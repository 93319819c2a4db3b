"""Once: a function is called once for the same things, and never answers for others."""

from __future__ import annotations

from typing import Any

from qup.config.once import Once


def test_things_that_cannot_be_hashed_are_told_apart_by_identity() -> None:
    calls: list[Any] = []
    once = Once()

    def count(rows: list[int], name: str) -> int:
        calls.append((rows, name))
        return len(rows)

    rows, equal = [1, 2], [1, 2]
    assert [once(count, rows, "a"), once(count, rows, "".join(["a"])), once(count, equal, "a"), once(count, rows, "b")] == [2] * 4
    assert len(calls) == 3


def test_a_number_is_not_the_truth_value_that_equals_it() -> None:
    once = Once()
    assert (once(str, 1), once(str, True)) == ("1", "True")


def test_what_was_given_is_kept_so_that_nothing_new_has_its_identity() -> None:
    once = Once()
    assert all(once(sum, [index]) == index for index in range(1_000))
