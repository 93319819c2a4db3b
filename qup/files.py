"""Files that appear whole, written beside their names and renamed there, so that no reader meets half of one; and what tells files apart."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def writing(path: Path, *, sync: bool = False, once: bool = False) -> Iterator[Path]:
    """Gives a path beside `path` to write a file to, and renames it to `path` when the block ends without an error.

    Folders are made as needed, what an error leaves behind is removed. `sync` puts the content on disk before the name;
    with `once`, the first of several writers decides: a file that stands there by now stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        yield beside
        if sync:
            flush(beside)
        if once:
            with suppress(FileExistsError):
                os.link(beside, path)
        else:
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Writes text as UTF-8, its line ends as they are."""
    with writing(path, sync=sync) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def write_bytes(path: Path, content: bytes) -> None:
    with writing(path) as beside:
        beside.write_bytes(content)


def write_json(path: Path, value: Any, *, compact: bool = False, sync: bool = True) -> None:
    """Writes JSON with sorted keys and syncs it; `compact` for what is large and read by programs alone."""
    write_text(path, json.dumps(value, indent=None if compact else 1, sort_keys=True, allow_nan=True), sync=sync)


def write_table(path: Path, table: pa.Table, *, once: bool = False) -> None:
    """Writes a table as parquet."""
    import pyarrow.parquet as pq

    with writing(path, once=once) as beside:
        pq.write_table(table, beside, compression="zstd")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def tail(path: Path, most: int, offset: int = 0) -> str:
    """The last bytes of a text, none before `offset`; empty where it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(offset, stream.seek(0, 2) - most))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Puts a file's content on disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
