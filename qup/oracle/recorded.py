"""An Oracle of recorded answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qup.config.fingerprint import digest
from qup.config.schema import Oracle
from qup.errors import Fault, InputError
from qup.oracle.asks import Request
from qup.oracle.completions import Reply
from qup.oracle.faults import Hopeless


class RecordedBackend:
    """Answers from a file: JSON lines, or a folder of them such as an answer store's segments.

    A line has `answer`, and one of `key`, `messages`, `messages_sha256`; it may have `attempt` (else it answers every
    attempt that has no line of its own), `finish`, `input_tokens`, `output_tokens`. Only places are held in memory.
    """

    stored = False

    def __init__(self, oracle: Oracle) -> None:
        self._path = Path(oracle.path)
        self.service = f"the recording oracle.path={oracle.path}"
        self.identity = {"backend": "recorded"}
        self._places: dict[bytes, tuple[int, int, int]] = {}
        self._files = sorted(self._path.glob("*.jsonl")) if self._path.is_dir() else [self._path]
        if not oracle.path or not self._path.exists() or not self._files:
            raise InputError(
                f"oracle.path={oracle.path!r}: with oracle.backend=recorded this is a jsonl file of recorded answers, or a folder of such files"
            )
        for number, file in enumerate(self._files):
            for row, offset, line in _rows(file):
                for name in _names(file, row, line):
                    self._places[name] = (number, offset, len(line))
        if not self._places:
            raise InputError(f"oracle.path={oracle.path}: there is no recorded answer in it")

    def prepare(self) -> None:
        pass

    async def send(self, request: Request) -> Reply:
        ask, spoken = request.ask, digest(request.body["messages"])
        for name in (request.key, f"{spoken} {ask.attempt}", spoken):
            place = self._places.get(_hash(name))
            if place is not None:
                row = self._read(*place)
                return Reply(row["answer"], row.get("finish", "stop"), row.get("input_tokens", 0), row.get("output_tokens", 0))
        raise Hopeless(
            f"{self.service} holds no answer for task {ask.task!r}, id {ask.id!r}, attempt {ask.attempt}, key {request.key}. Record it: run once with a live Oracle "
            f'and point oracle.path at that store\'s oracle/answers folder, or add a line {{"key": "{request.key}", "answer": "..."}}'
        )

    async def close(self) -> None:
        pass

    def _read(self, number: int, offset: int, length: int) -> dict[str, Any]:
        with self._files[number].open("rb") as file:
            file.seek(offset)
            return json.loads(file.read(length))


def check_recording(oracle: Oracle, key: str) -> list[Fault]:
    """What is wrong with the recorded answers; `key` is where `oracle` stands."""
    try:
        RecordedBackend(oracle)
    except InputError as error:
        return [Fault(f"{key}.path", oracle.path, str(error))]
    return []


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _names(file: Path, number: int, line: bytes) -> Iterator[bytes]:
    """What a recorded answer can be found by."""
    try:
        row = json.loads(line)
        if not isinstance(row["answer"], str):
            raise TypeError
    except (ValueError, LookupError, TypeError):
        raise InputError(f'{file}, row {number}: a recorded answer is a JSON object with a text "answer"') from None
    spoken = row.get("messages_sha256") or (digest(row["messages"]) if "messages" in row else None)
    if spoken is None and "key" not in row:
        raise InputError(f'{file}, row {number}: a recorded answer has "messages", "messages_sha256" or "key" beside "answer"')
    if "key" in row:
        yield _hash(row["key"])
    if spoken is not None:
        yield _hash(f"{spoken} {row['attempt']}" if "attempt" in row else spoken)


def _rows(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """(row from 1, offset, line); an unfinished last line, as a kill leaves it in a segment, is left out where it is no JSON."""
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip() and (line.endswith(b"\n") or _is_json(line)):
                yield number, offset, line
            offset += len(line)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
