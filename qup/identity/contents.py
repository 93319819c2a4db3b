"""Digests of local files and folders, remembered by path, size, times of change and inode."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path

from qup.files import file_sha256, read_json, write_text

CACHE = ".digests.json"
SETTLED_NS = 2_000_000_000
"""A file changed less than this ago may change again within the same tick of its clock, so it isn't remembered."""


class Digests:
    """Digests of contents, kept in a file beside the store's artifacts. Losing that file costs time and nothing else."""

    def __init__(self, store_dir: Path) -> None:
        self._path = store_dir / CACHE
        self._known: dict[str, list[int | str]] = read_json(self._path) or {}
        self._new: dict[str, list[int | str]] = {}

    def of(self, path: Path) -> str:
        """sha256 of a file's bytes, or of the names and digests of a folder's files. OSError where it can't be read.

        Hidden files and byte code are no part of a folder's content.
        """
        if path.is_dir():
            lines = [f"{name} {self._file(path / name)}" for name in _files(path)]
            return hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return self._file(path)

    def save(self) -> None:
        """Adds what was learned to the file, written beside and renamed; a store not there or not writable is left alone."""
        if not self._new or not self._path.parent.is_dir():
            return
        with contextlib.suppress(OSError):
            write_text(self._path, json.dumps((read_json(self._path) or {}) | self._new))
            self._new = {}

    def _file(self, path: Path) -> str:
        name, before = str(path.absolute()), _stamp(path)
        known = self._new.get(name) or self._known.get(name)
        if known is not None and known[:-1] == before:
            return str(known[-1])
        found = file_sha256(path)
        if _stamp(path) == before and time.time_ns() - max(int(before[1]), int(before[2])) > SETTLED_NS:
            self._new[name] = [*before, found]
        return found


def _stamp(path: Path) -> list[int | str]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _files(folder: Path) -> list[str]:
    """Names of a folder's files, relative and sorted."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") or part == "__pycache__" for part in name.parts))
