"""What a stage spent: every request is noted before it is sent, and again when its fate is known.

One append-only file a process, in a folder that survives kills; the sum over the folder's files is what the stage
spent, over all its workers and restarts. A request without a known fate is in doubt: it was in flight when the process
was killed or the connection cut, and may have to be paid for.

Lines: `s key` sent, `t key` sent again, `a key in out usd` answered, `r key status` turned away (nothing bought),
`d key status` no usable answer (in doubt), `b key` sent inside a batch. Batches settle by whoever collects them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qup.errors import StoreError
from qup.oracle.store import process_name, whole_lines

_REFRESH_S = 1.0


@dataclass
class Spent:
    """Totals. `status` counts the answers that were none: 429, cut, timeout, malformed, unreachable, 500, …"""

    requests: int = 0
    answered: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    in_doubt: int = 0
    retries: int = 0
    status: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests,
            self.answered + other.answered,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.usd + other.usd,
            self.in_doubt + other.in_doubt,
            self.retries + other.retries,
            self.status + other.status,
        )

    def as_dict(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "status": dict(sorted(self.status.items()))}

    def note(self, kind: str, *rest: str) -> None:
        """Counts one line of a ledger."""
        if kind in ("s", "t", "b"):
            self.requests += 1
            self.retries += kind == "t"
            self.in_doubt += 1
        elif kind == "a":
            self.answered += 1
            self.input_tokens += int(rest[0])
            self.output_tokens += int(rest[1])
            self.usd += float(rest[2])
            self.in_doubt -= 1
        elif kind in ("r", "d"):
            self.status[rest[0]] += 1
            self.in_doubt -= kind == "r"


class Ledger:
    """Our own file, written; the other files of the folder, read. Without a folder nothing outlives the process."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.own = Spent()
        self._folder, self._clock = folder, clock
        self._others: dict[Path, tuple[Spent, int]] = {}
        self._read_at = float("-inf")
        self._path: Path | None = None
        self._handle = -1
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._path = folder / f"{process_name()}.ledger"
            except OSError as error:
                raise StoreError(f"the Oracle's ledger {folder} can't be written: {error}") from error

    def note(self, kind: str, key: str, *rest: object) -> None:
        """Appends a line. It survives the death of the process at once, and that of the machine after `sync`."""
        texts = [f"{value:.12g}" if isinstance(value, float) else str(value) for value in rest]
        self.own.note(kind, *texts)
        if self._path is None:
            return
        try:
            if self._handle < 0:
                self._handle = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
            os.write(self._handle, f"{' '.join((kind, key[:16], *texts))}\n".encode())
        except OSError as error:
            raise StoreError(f"the Oracle's ledger {self._path} can't be written: {error}") from error

    def sync(self) -> None:
        """Forces what was noted to disk."""
        if self._handle >= 0:
            os.fsync(self._handle)

    def total(self) -> Spent:
        """Spent by every process that ever wrote to this folder, others' as of a second ago."""
        if self._folder is not None and self._clock() - self._read_at >= _REFRESH_S:
            for path in self._folder.glob("*.ledger"):
                if path != self._path:
                    self._others[path] = _read(path, *self._others.get(path, (Spent(), 0)))
            self._read_at = self._clock()
        return sum((spent for spent, _ in self._others.values()), self.own)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def read_spent(folder: Path) -> Spent:
    """The totals of a ledger folder; zeros where there is none."""
    return sum((_read(path, Spent(), 0)[0] for path in sorted(folder.glob("*.ledger"))), Spent())


def _read(path: Path, spent: Spent, start: int) -> tuple[Spent, int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        for offset, line in whole_lines(handle, start):
            kind, _, *rest = line.decode().split()
            spent.note(kind, *rest)
            start = offset + len(line)
    finally:
        os.close(handle)
    return spent, start
