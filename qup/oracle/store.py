"""Answers that were paid for: append-only segments in one folder, one segment a process, shared by all studies.

A segment is JSON lines. Each line starts with the CRC-32 of the rest of it, so that a line torn by a crash, or half
seen over a network file system, is told from a whole one. Nothing is ever rewritten and no lock is needed: a process
writes to its own segment only and reads everybody's. Beside a segment lies `<segment>.idx`, the places of its lines;
it is derived, checked on use, and may be deleted.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from qup.errors import StoreError
from qup.oracle.index import ENTRY, OffsetIndex, short

_PLACE = np.dtype([("key", "<u8"), ("offset", "<u8"), ("length", "<u4")])
_HEAD = b'{"crc32":"'
_BODY = len(_HEAD) + 8 + 2  # the checksum and `",` end here
_REFRESH_S = 5.0
_CHUNK = 1 << 22


def process_name() -> str:
    """A name that no other process has, readable to people."""
    return f"{socket.gethostname().split('.')[0]}-{os.getpid()}-{secrets.token_hex(4)}"


def encode(record: dict[str, Any]) -> bytes:
    """One line of a segment."""
    body = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode()[1:]
    return b'%b%08x",%b\n' % (_HEAD, zlib.crc32(body), body)


def decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line, None where it is torn or damaged."""
    body = line[_BODY:].rstrip(b"\n")
    if not line.startswith(_HEAD) or line[len(_HEAD) : _BODY - 2] != b"%08x" % zlib.crc32(body):
        return None
    return json.loads(b"{" + body)


def answer_row(
    key: str, about: dict[str, Any], model: str, text: str, finish: str, input_tokens: int, output_tokens: int, usd: float
) -> dict[str, Any]:
    """A record of the store; the backend `recorded` can read it back. `about`: task, id, attempt, messages_sha256."""
    figures = {"finish": finish, "input_tokens": input_tokens, "output_tokens": output_tokens, "usd": usd}
    return {"key": key, **about, "model": model, "answer": text, **figures, "at": datetime.now(UTC).isoformat(timespec="seconds")}


class AnswerStore:
    """Look-up over every segment of a folder, and one segment of our own to write to. Safe to use from several threads."""

    def __init__(self, folder: Path, refresh_s: float = _REFRESH_S) -> None:
        self._folder = folder
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._index = OffsetIndex()
        self._segments: list[Path] = []
        self._numbers: dict[str, int] = {}
        self._scanned: list[int] = []
        self._handles: dict[int, int] = {}
        self._own: tuple[int, int, int] | None = None  # segment number, descriptor, descriptor of its index
        self._refreshed = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._refresh()
        except OSError as error:
            raise StoreError(f"the Oracle's answers in {folder} can't be read: {error}") from error

    def __len__(self) -> int:
        return len(self._index)

    def get(self, key: str) -> dict[str, Any] | None:
        """The record stored under a key, None where there is none. Other processes' answers are seen within seconds."""
        with self._lock:
            found = self._find(key)
            if found is None and time.monotonic() - self._refreshed >= self._refresh_s:
                self._refresh()
                found = self._find(key)
            return found

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Appends records and returns once they are on disk; each has its `key`. Raises StoreError."""
        lines = [encode(record) for record in records]
        with self._lock:
            try:
                number, data, places = self._own or self._create()
                offset = self._scanned[number]
                _write_all(data, b"".join(lines))
                os.fsync(data)
            except OSError as error:
                self._abandon()
                raise StoreError(
                    f"an answer can't be stored in {self._folder}: {error}; it was paid for, and is counted as in doubt"
                ) from error
            entries = np.empty(len(lines), _PLACE)
            for row, (record, line) in enumerate(zip(records, lines, strict=True)):
                entries[row] = (short(record["key"]), offset, len(line))
                self._index.add(short(record["key"]), number, offset, len(line))
                offset += len(line)
            self._scanned[number] = offset
            try:
                _write_all(places, entries.tobytes())
            except OSError:
                self._abandon()

    def close(self) -> None:
        with self._lock:
            self._abandon()
            for handle in self._handles.values():
                os.close(handle)
            self._handles.clear()

    def _create(self) -> tuple[int, int, int]:
        path = self._folder / f"{process_name()}.jsonl"
        data = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
        places = os.open(path.with_suffix(".idx"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._own = (self._register(path), data, places)
        return self._own

    def _abandon(self) -> None:
        """Writes no more to our segment: its end may be torn."""
        if self._own is not None:
            os.close(self._own[1])
            os.close(self._own[2])
            self._own = None

    def _register(self, path: Path) -> int:
        self._numbers[path.name] = len(self._segments)
        self._segments.append(path)
        self._scanned.append(0)
        return len(self._segments) - 1

    def _find(self, key: str, mend: bool = True) -> dict[str, Any] | None:
        suspect = set()
        for number, offset, length in self._index.find(short(key)):
            record = decode(os.pread(self._handle(number), length, offset))
            if record is not None and record["key"] == key:
                return record
            suspect.add(number)
        if not suspect or not mend:
            return None
        for number in suspect:
            self._index.drop(number)
            self._scanned[number] = 0
            self._scan(number)
        return self._find(key, mend=False)

    def _refresh(self) -> None:
        for path in sorted(self._folder.glob("*.jsonl")):
            if path.name not in self._numbers:
                number = self._register(path)
                self._load_places(number)
        own = self._own[0] if self._own else -1
        for number, path in enumerate(self._segments):
            if number != own and path.stat().st_size > self._scanned[number]:
                self._scan(number)
        self._refreshed = time.monotonic()

    def _load_places(self, number: int) -> None:
        """Takes a segment's places from its index file, where that is plausible."""
        path = self._segments[number]
        try:
            raw = path.with_suffix(".idx").read_bytes()
        except FileNotFoundError:
            return
        places = np.frombuffer(raw[: len(raw) // _PLACE.itemsize * _PLACE.itemsize], _PLACE)
        if not len(places):
            return
        ends = places["offset"] + places["length"]
        if places["offset"][0] != 0 or ends[-1] > path.stat().st_size or (places["offset"][1:] != ends[:-1]).any():
            return
        last = decode(os.pread(self._handle(number), int(places["length"][-1]), int(places["offset"][-1])))
        if last is None or short(last["key"]) != places["key"][-1]:
            return
        entries = np.empty(len(places), ENTRY)
        for name in ("key", "offset", "length"):
            entries[name] = places[name]
        entries["segment"] = number
        self._index.extend(entries)
        self._scanned[number] = int(ends[-1])

    def _scan(self, number: int) -> None:
        """Indexes the whole lines beyond what was scanned; what follows the last of them is looked at again the next time."""
        for offset, line in whole_lines(self._handle(number), self._scanned[number]):
            record = decode(line)
            if record is not None:
                self._index.add(short(record["key"]), number, offset, len(line))
                self._scanned[number] = offset + len(line)

    def _handle(self, number: int) -> int:
        if number not in self._handles:
            if len(self._handles) >= 128:
                os.close(self._handles.pop(next(iter(self._handles))))
            self._handles[number] = os.open(self._segments[number], os.O_RDONLY)
        return self._handles[number]


def whole_lines(handle: int, start: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of every line that has its end, from `start` on, holding one chunk at a time."""
    rest, offset = b"", start
    while chunk := os.pread(handle, _CHUNK, offset + len(rest)):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield offset, line + b"\n"
            offset += len(line) + 1


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
