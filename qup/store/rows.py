"""Rows of tables too large to hold: read in batches, taken by number, written as they come.

100,000 problems with eight traces each are over a gigabyte of text; what reads or writes such a table
goes through here and holds one batch of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qup.errors import InputError
from qup.files import write_table, writing
from qup.store import Artifact

BATCH = 8192
"""Rows held at once."""


def batches(artifact: Artifact, name: str, columns: Sequence[str], size: int = BATCH) -> Iterator[pa.RecordBatch]:
    """The rows of `<name>.parquet` in order, `size` at a time."""
    with pq.ParquetFile(artifact.file(f"{name}.parquet"), buffer_size=1 << 20, pre_buffer=False) as file:
        yield from file.iter_batches(batch_size=size, columns=list(columns), use_threads=False)


def take(artifact: Artifact, name: str, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """The given rows, in ascending order of row number; `rows` is sorted, without repeats."""
    return pa.concat_tables(pieces(artifact, name, [rows], columns))


def pieces(artifact: Artifact, name: str, groups: Sequence[np.ndarray], columns: Sequence[str]) -> Iterator[pa.Table]:
    """One table for each array of row numbers, in one pass over the file.

    Each array is sorted and starts after the one before it ends.
    """
    wanted = iter(groups)
    group = next(wanted, None)
    held: list[pa.Table] = []
    done = 0
    start = 0
    empty: pa.Table | None = None
    for batch in batches(artifact, name, columns):
        stop = start + batch.num_rows
        empty = pa.Table.from_batches([batch.slice(0, 0)]) if empty is None else empty
        while group is not None:
            upto = int(np.searchsorted(group, stop))
            if upto > done:
                held.append(pa.Table.from_batches([batch]).take(pa.array(group[done:upto] - start)))
                done = upto
            if done < len(group):
                break
            yield pa.concat_tables(held) if held else empty
            group, held, done = next(wanted, None), [], 0
        if group is None:
            return
        start = stop
    while group is not None:
        if done < len(group):
            raise IndexError(f"row {group[done]} asked of {name}, which has {start} rows")
        yield pa.concat_tables(held) if held else (empty if empty is not None else artifact.table(name, list(columns)))
        group, held, done = next(wanted, None), [], 0


def positions(values: pa.ChunkedArray | pa.Array, ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Where each value stands in `ids`, int64, −1 for those that do not occur."""
    found = pc.index_in(values, value_set=ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids)
    return np.asarray(pc.fill_null(found, -1)).astype(np.int64)


def owners(values: pa.ChunkedArray, ids: pa.ChunkedArray, what: str) -> np.ndarray:
    """As `positions`; raises InputError with the first problem that does not occur, of which `what` is told."""
    found = positions(values, ids)
    if (found < 0).any():
        raise InputError(f"problem {values[int(np.argmax(found < 0))].as_py()!r} {what}")
    return found


def create_once(path: Path, table: pa.Table) -> pa.Table:
    """Writes a small table that the first of several processes decides; everyone gets what stands there then."""
    if not path.exists():
        write_table(path, table, once=True)
    return pq.read_table(path)


def match(keys: pa.Table, scored: pa.Table) -> np.ndarray:
    """Row in `scored` of each of the keys, both by problem_id and candidate; int64, −1 where there is none."""
    if not keys.num_rows or not scored.num_rows:
        return np.full(keys.num_rows, -1, np.int64)
    ids = pc.unique(scored["problem_id"])
    candidate_S = np.asarray(scored["candidate"]).astype(np.int64)
    candidate_K = np.asarray(keys["candidate"]).astype(np.int64)
    width = int(max(candidate_S.max(), candidate_K.max())) + 1
    problem_K = positions(keys["problem_id"], ids)
    code_S = positions(scored["problem_id"], ids) * width + candidate_S
    code_K = np.where(problem_K < 0, -1, problem_K * width + candidate_K)
    order = np.argsort(code_S, kind="stable")
    slot = np.minimum(np.searchsorted(code_S[order], code_K), len(order) - 1)
    return np.where(code_S[order][slot] == code_K, order[slot], -1)


class TableWriter:
    """Writes a table piece by piece; it appears under its name when the block ends without an error."""

    def __init__(self, out: Path, name: str, schema: pa.Schema) -> None:
        self.path = out / f"{name}.parquet"
        self.schema = schema
        self.rows = 0
        self._file = writing(self.path)

    def __enter__(self) -> TableWriter:
        self._writer = pq.ParquetWriter(self._file.__enter__(), self.schema, compression="zstd")
        return self

    def write(self, table: pa.Table) -> None:
        """Appends rows; columns are put into the schema's order and types."""
        if table.num_rows:
            self._writer.write_table(table.select(self.schema.names).cast(self.schema))
            self.rows += table.num_rows

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()
        self._file.__exit__(kind, error, trace)
