"""A table's digest is of its rows, however they are cut."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qup.store import digest
from qup.store.digest import table_digest

ROWS = 23
RNG = np.random.default_rng(0)


def some(values, every=4):
    """With a null now and then."""
    return [None if i % every == 1 else value for i, value in enumerate(values)]


TABLE = pa.table(
    {
        "text": pa.array(some(["x" * (i % 5) for i in range(ROWS)])),
        "large": pa.array(["é" * (i % 3) for i in range(ROWS)], pa.large_string()),
        "number": pa.array(some(list(range(ROWS))), pa.int32()),
        "real": pa.array(RNG.normal(size=ROWS)),
        "flag": pa.array(some([i % 3 == 0 for i in range(ROWS)])),
        "ids": pa.array(some([list(range(i % 4)) for i in range(ROWS)]), pa.list_(pa.int32())),
        "names": pa.array([some(["a", "bc"][: i % 3], 2) for i in range(ROWS)], pa.list_(pa.string())),
        "turn": pa.array(some([{"role": "user", "n": [i]} for i in range(ROWS)], 5)),
        "pair": pa.array([[i, i + 1] for i in range(ROWS)], pa.list_(pa.float32(), 2)),
        "status": pa.array(["ok", "failed", None][i % 3] for i in range(ROWS)).dictionary_encode(),
        "day": pa.array(some([datetime.date(2025, 1, 1 + i) for i in range(ROWS)])),
        "nothing": pa.nulls(ROWS),
    }
)


def of(tmp_path, table, **options):
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, **options)
    return table_digest(path)


@pytest.mark.parametrize("rows", [1, 2, 7, ROWS - 1, ROWS, 1000])
def test_chunks_row_groups_and_batches_leave_no_trace(tmp_path, monkeypatch, rows):
    whole = of(tmp_path, TABLE)
    chunked = pa.concat_tables([TABLE.slice(start, rows) for start in range(0, ROWS, rows)])
    assert of(tmp_path, chunked, compression="none") == whole
    assert of(tmp_path, TABLE, row_group_size=rows) == whole
    assert of(tmp_path, TABLE, use_dictionary=False, data_page_size=16, row_group_size=rows) == whole
    monkeypatch.setattr(digest, "ROWS", rows)
    assert of(tmp_path, TABLE) == whole
    assert of(tmp_path, TABLE, row_group_size=5) == whole


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.string(), pa.struct([("a", pa.int8())])])
def test_no_rows_have_one_digest_with_and_without_a_row_group(tmp_path, kind):
    none = pa.table({"a": pa.array([], kind)})
    without = of(tmp_path, none)
    with pq.ParquetWriter(tmp_path / "t.parquet", none.schema) as writer:
        writer.write_table(none)
        writer.write_table(none)
    assert table_digest(tmp_path / "t.parquet") == without


def test_each_value_counts(tmp_path):
    seen = {of(tmp_path, TABLE)}
    for name in TABLE.column_names:
        place = TABLE.column_names.index(name)
        if name != "nothing":
            order = pa.array([1, 0, *range(2, ROWS)])
            seen.add(of(tmp_path, TABLE.set_column(place, TABLE.field(name), TABLE[name].take(order))))
        seen.add(of(tmp_path, TABLE.rename_columns([*TABLE.column_names[:place], "other", *TABLE.column_names[place + 1 :]])))
    assert len(seen) == 2 * len(TABLE.column_names)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.array(["ab", "c"]), pa.array(["a", "bc"])),
        (pa.array(["", None]), pa.array([None, ""])),
        (pa.array([0, None]), pa.array([None, 0])),
        (pa.array([[1], [2, 3]]), pa.array([[1, 2], [3]])),
        (pa.array([[], None], pa.list_(pa.int8())), pa.array([None, []], pa.list_(pa.int8()))),
        (pa.array([{"a": None}], pa.struct([("a", pa.int8())])), pa.array([None], pa.struct([("a", pa.int8())]))),
        (pa.array([1], pa.int32()), pa.array([1], pa.uint32())),
        (pa.array(["1"]), pa.array([b"1"])),
        (pa.nulls(1), pa.nulls(2)),
    ],
)
def test_boundaries_nulls_and_types_count(tmp_path, left, right):
    assert of(tmp_path, pa.table({"a": left})) != of(tmp_path, pa.table({"a": right}))
