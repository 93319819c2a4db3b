"""What an artifact's data is, apart from how its files happen to be laid out."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qup.files import file_sha256

VOLATILE = ("steps.jsonl", "README.md", "server.log")
"""Files that tell of a run (timings, names for people) and not of its result."""

BLOCK = 1 << 20
ROWS = 4096
"""Rows of a table held at once."""


class _Column:
    """A column's values, hashed so that it leaves no trace where one chunk ended and the next began.

    What lies below a null is not hashed, and dictionaries are what they stand for.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.nulls, self.lengths, self.values = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self.parts: dict[int, _Column] = {}

    def update(self, array: pa.Array) -> None:
        """Appends a chunk."""
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if array.null_count:
            self.nulls.update(_integers(np.flatnonzero(array.is_null()) + self.rows))
        self.rows += len(array)
        array, kind = array.drop_null(), array.type
        if pa.types.is_struct(kind):
            for place, part in enumerate(array.flatten()):
                self.parts.setdefault(place, _Column()).update(part)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            self.lengths.update(_integers(pc.list_value_length(array)))
            self.parts.setdefault(0, _Column()).update(array.flatten())
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            self.lengths.update(_integers(pc.binary_length(array)))
            array = array.cast(pa.large_binary())
            _, offsets, values = array.buffers()
            self._bytes(values, *np.frombuffer(offsets, "<i8")[[array.offset, array.offset + len(array)]])
        elif not pa.types.is_null(kind):
            array = array.cast(pa.uint8()) if pa.types.is_boolean(kind) else array
            width = array.type.bit_width // 8
            self._bytes(array.buffers()[1], array.offset * width, (array.offset + len(array)) * width)

    def _bytes(self, buffer: Any, start: int, stop: int) -> None:
        if stop > start:
            self.values.update(memoryview(buffer)[start:stop])

    def digest(self) -> str:
        parts = [self.parts[place].digest() for place in sorted(self.parts)]
        own = [str(self.rows), self.nulls.hexdigest(), self.lengths.hexdigest(), self.values.hexdigest()]
        return hashlib.sha256("\0".join(own + parts).encode()).hexdigest()


def _integers(values: Any) -> bytes:
    return np.asarray(values).astype("<i8").tobytes()


def table_digest(path: Path) -> str:
    """SHA-256 of a parquet file's rows: schema and values, whatever the compression, row groups and chunks. Holds one batch of it."""
    with pq.ParquetFile(path, buffer_size=BLOCK, pre_buffer=False) as file:
        schema = file.schema_arrow
        columns = [_Column() for _ in schema]
        for batch in file.iter_batches(ROWS, use_threads=False):
            for column, array in zip(columns, batch.columns if batch.num_rows else ()):
                column.update(array)
    lines = [f"{field.name}\0{field.type}\0{field.nullable}\0{column.digest()}\n" for field, column in zip(schema, columns, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tensors_digest(path: Path) -> str:
    """SHA-256 of a safetensors file's names, shapes, types and bytes, without its metadata."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        hasher = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        while block := stream.read(BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def data_digest(root: Path) -> str:
    """SHA-256 over every file of an artifact but its manifest and the volatile ones."""
    hasher = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or name == "manifest.json" or path.name in VOLATILE:
            continue
        match path.suffix:
            case ".parquet":
                digest = table_digest(path)
            case ".safetensors":
                digest = tensors_digest(path)
            case _:
                digest = file_sha256(path)
        hasher.update(f"{name}\0{digest}\n".encode())
    return hasher.hexdigest()
