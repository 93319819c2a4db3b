"""Rows of large tables, and edit distances."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qup.store import rows
from qup.text.edits import changed_share
from tests.helpers.artifacts import artifact

SCHEMA = pa.schema([("problem_id", pa.string()), ("candidate", pa.int32())])


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "BATCH", 7)
    monkeypatch.setattr(rows.batches, "__defaults__", (7,))
    return artifact(tmp_path, "t", t=pa.table({"n": list(range(100)), "text": [f"row {index}" for index in range(100)]}))


def test_rows_are_taken_in_one_pass_and_in_order(table):
    groups = [np.array([0, 3, 6, 7]), np.array([], int), np.arange(20, 60), np.array([99])]
    found = [piece["n"].to_pylist() for piece in rows.pieces(table, "t", groups, ["n"])]
    assert found == [group.tolist() for group in groups]
    assert rows.take(table, "t", np.array([5, 50]), ["text"])["text"].to_pylist() == ["row 5", "row 50"]


def test_a_row_that_is_not_there_is_an_error(table):
    with pytest.raises(IndexError, match="row 100 asked of t, which has 100 rows"):
        list(rows.pieces(table, "t", [np.array([1]), np.array([99, 100])], ["n"]))


def test_match_finds_keys_whatever_their_order():
    rng = np.random.default_rng(0)
    names, numbers = rng.integers(0, 40, 300), rng.permutation(300)
    scored = pa.table({"problem_id": [f"p{n}" for n in names], "candidate": numbers})
    picked = rng.permutation(300)[:120]
    keys = scored.take(pa.array(picked))
    assert rows.match(keys, scored).tolist() == picked.tolist()
    unknown = pa.table({"problem_id": ["p1", "zz"], "candidate": [999, 0]})
    assert rows.match(unknown, scored).tolist() == [-1, -1]
    assert rows.match(unknown, scored.slice(0, 0)).tolist() == [-1, -1]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    part = pa.table({"candidate": [1], "problem_id": ["a"]})
    with rows.TableWriter(tmp_path, "done", SCHEMA) as writer:
        writer.write(part)
        writer.write(part)
    assert pq.read_table(tmp_path / "done.parquet").schema.equals(SCHEMA)
    assert writer.rows == 2
    with pytest.raises(ZeroDivisionError), rows.TableWriter(tmp_path, "failed", SCHEMA) as writer:
        writer.write(part)
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done.parquet"]


def test_the_first_process_decides(tmp_path):
    first, second = (pa.table({"x": [value]}) for value in (1, 2))
    assert rows.create_once(tmp_path / "work" / "f", first)["x"].to_pylist() == [1]
    assert rows.create_once(tmp_path / "work" / "f", second)["x"].to_pylist() == [1]


def test_edit_distance_is_the_share_of_tokens_changed():
    assert changed_share([1, 2, 3], [1, 2, 3]) == 0
    assert changed_share([1, 2, 3], [1, 9, 3, 4]) == pytest.approx(2 / 4)
    assert changed_share([1], [2]) == 1
    assert changed_share([], []) == 0
