"""Rows of a data file: jsonl, json, parquet or csv, a folder of such files, or a data set on the hub.

Everything local is read without heavy imports, so that a file can be checked while a study is planned.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qup.errors import InputError

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
_NAMED = 12


@dataclass(frozen=True)
class Rows:
    """The wanted columns of the first rows of a data set.

    `values[i]` are row i's, None where the row has none; `numbers[i]` is where people find that row: its line in jsonl
    and csv, else its number from 1. `columns` are all there are. `broken` tells of the rows that can't be read, which are
    left out: a text a file.
    """

    columns: tuple[str, ...]
    numbers: list[int]
    values: list[dict[str, Any]]
    broken: tuple[str, ...] = ()


def read_local(path: Path, wanted: Sequence[str], *, split: str, subset: str | None = None, limit: int | None = None) -> Rows:
    """Rows of a file, or of a folder's files for `split`, within its subfolder `subset` where one is named.

    Raises InputError naming the file where it can't be read at all.
    """
    numbers: list[int] = []
    values: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    told: list[str] = []
    left = limit
    for file in _files(path, split, subset):
        if left == 0:
            break
        before, broken = len(values), []
        for number, row in islice(_READERS[file.suffix](file, wanted), left):
            if isinstance(row, str):
                broken.append(f"row {number}: {row}")
                continue
            columns.update(dict.fromkeys(row))
            numbers.append(number if path == file else before + number)
            values.append({name: row.get(name) for name in wanted})
        if file.suffix == ".parquet":
            columns.update(dict.fromkeys(_parquet_columns(file)))
        if broken:
            told.append(_broken(file, broken))
        left = None if left is None else left - (len(values) - before) - len(broken)
    return Rows(tuple(columns), numbers, values, tuple(told))


def _broken(file: Path, rows: Sequence[str]) -> str:
    if len(rows) == 1:
        return f"{file}, {rows[0]}"
    more = f"; and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return f"{file}: {len(rows)} rows can't be read: {'; '.join(rows[:_NAMED])}{more}"


def count_local(path: Path, split: str, subset: str | None = None) -> int | None:
    """How many rows `read_local` would give, without reading what need not be; None where it would raise."""
    try:
        return sum(_count(file) for file in _files(path, split, subset))
    except (InputError, OSError, ValueError):
        return None


def _count(file: Path) -> int:
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(file).num_rows)
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    return sum(1 for _ in _READERS[file.suffix](file, ()))


def read_hub(name: str, wanted: Sequence[str], *, subset: str | None, split: str, revision: str | None, limit: int | None = None) -> Rows:
    """Rows of a data set on the hub, through `datasets`; raises InputError with its own reason."""
    import datasets

    datasets.disable_progress_bars()
    try:
        data = datasets.load_dataset(name, subset, split=split, revision=revision)
    except Exception as error:  # the library's errors share no base class
        reason = " ".join(str(error).split())[:300]
        where = f"{name} (subset {subset or 'default'}, split {split}, revision {revision or 'newest'})"
        raise InputError(f"{where} can't be loaded from the hub: {type(error).__name__}: {reason}") from None
    columns = tuple(data.column_names)
    data = data.select(range(min(limit or len(data), len(data)))).select_columns([name for name in wanted if name in columns])
    batches = data.with_format("arrow").iter(batch_size=4096)
    values = [{name: row.get(name) for name in wanted} for batch in batches for row in batch.to_pylist()]
    return Rows(columns, list(range(1, len(values) + 1)), values)


def _files(path: Path, split: str, subset: str | None) -> list[Path]:
    """The files of a split: named `split`, or `split-00000-of-00002` and the like, or in a folder named `split`."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
        return [path]
    there = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and not file.name.startswith("."))
    names = ", ".join(str(file.relative_to(path)) for file in there[:_NAMED]) or f"no file that ends in {', '.join(SUFFIXES)}"
    if subset is not None:
        there = [file for file in there if subset in file.relative_to(path).parts[:-1]]
        if not there:
            raise InputError(f"{path}: no subfolder {subset!r} (subset); the folder holds {names}")
    found = {file: root for file in there if (root := _root(file.relative_to(path), split)) is not None}
    if not found:
        raise InputError(f"{path}: no files of split {split!r}; the folder holds {names}")
    roots = sorted(set(map(str, found.values())))
    if len(roots) > 1:
        raise InputError(
            f"{path}: files of split {split!r} in several folders: {', '.join(roots)}; choose one by subset=, or name its path"
        )
    return list(found)


def _root(file: Path, split: str) -> Path | None:
    """The folder that holds the file's splits; None where the file is of another split."""
    if split in file.parts[:-1]:
        return Path(*file.parts[: file.parts.index(split)])
    shard = r"([-._]\d+([-._]of[-._]\d+)?([-._][0-9a-f]+)?)?"
    return file.parent if re.fullmatch(re.escape(split) + shard, file.stem) else None


def _jsonl(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, _object(_parsed(line, ""))
                except InputError as error:
                    yield number, str(error)


def _json(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with _opened(path) as file:
        text = file.read()
    content = _parsed(text, f"{path}: ") if text.strip() else []
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of objects, found {type(content).__name__}; one object a line wants the ending .jsonl")
    for number, row in enumerate(content, 1):
        yield number, row if isinstance(row, dict) else _no_object(row)


def _csv(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with _opened(path) as file:
        content = file.read()
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, row {number}: not valid UTF-8 ({error.reason} at byte {error.start})") from None
    try:
        names = next(reader, [])
        for cells in reader:
            if cells and len(cells) != len(names):
                raise InputError(f"{path}, row {reader.line_num}: {len(cells)} cells, but {len(names)} columns: {', '.join(names)}")
            if cells:
                yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, row {reader.line_num}: not valid CSV ({error})") from None


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _parquet(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = [name for name in wanted if name in file.schema_arrow.names]
            number = 0
            for batch in file.iter_batches(batch_size=4096, columns=there, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable parquet file ({error})") from None


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _integer(digits: str) -> int | str:
    """A JSON integer; as its digits where Python would refuse to read so many."""
    return int(digits) if len(digits) < sys.int_info.default_max_str_digits else digits


def _parsed(text: bytes, where: str) -> Any:
    """The content of JSON; `where` stands before what is wrong with it, '' for a single line."""
    try:
        return json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if where else f"column {error.colno}"
        raise InputError(f"{where}not valid JSON ({error.msg} at {place})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{where}not valid UTF-8 ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise InputError(f"{where}JSON nested too deeply") from None


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(_no_object(row))
    return row


def _no_object(row: Any) -> str:
    return f"expected an object, found {type(row).__name__}"


_READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
