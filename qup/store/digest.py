"""What an artifact's data is, apart from how its files happen to be laid out."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

VOLATILE = ("steps.jsonl", "README.md", "server.log")
"""Files that tell of a run (timings, names for people) and not of its result."""

BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


class _HashSink:
    """A file object that hashes what Arrow writes to it."""

    def __init__(self) -> None:
        self.hasher = hashlib.sha256()
        self.closed = False

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self.hasher.update(view)
        return view.nbytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def table_digest(path: Path) -> str:
    """SHA-256 of a parquet file's rows: schema and values, whatever the compression and row groups."""
    table = pq.read_table(path, use_threads=False).replace_schema_metadata(None).combine_chunks()
    sink = _HashSink()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), table.schema) as writer:
        writer.write_table(table)
    return sink.hasher.hexdigest()


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
