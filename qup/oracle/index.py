"""Where each stored answer lies: 24 bytes an answer, so a million answers fit in 24 MB."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ENTRY = np.dtype([("key", "<u8"), ("offset", "<u8"), ("segment", "<u4"), ("length", "<u4")])
_RECENT = 20_000


def short(key: str) -> int:
    """The first 64 bits of a hexadecimal key; the line found is checked against the whole."""
    return int(key[:16], 16)


class OffsetIndex:
    """Key → places in segments. Recent entries are kept in a dict and folded into one sorted array from time to time."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, ENTRY)
        self._recent: dict[int, list[tuple[int, int, int]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._sorted) + self._count

    def add(self, key: int, segment: int, offset: int, length: int) -> None:
        self._recent.setdefault(key, []).append((segment, offset, length))
        self._count += 1
        if self._count >= _RECENT:
            self._fold()

    def extend(self, entries: np.ndarray) -> None:
        """Notes many lines, an array of ENTRY."""
        self._fold(entries)

    def find(self, key: int) -> Iterator[tuple[int, int, int]]:
        """(segment, offset, length) of every line that may hold the key, the latest noted first."""
        yield from reversed(self._recent.get(key, []))
        keys = self._sorted["key"]
        low, high = np.searchsorted(keys, np.uint64(key), "left"), np.searchsorted(keys, np.uint64(key), "right")
        for entry in self._sorted[low:high][::-1]:
            yield int(entry["segment"]), int(entry["offset"]), int(entry["length"])

    def drop(self, segment: int) -> None:
        """Forgets every line of a segment."""
        self._fold()
        self._sorted = self._sorted[self._sorted["segment"] != segment]

    def _fold(self, more: np.ndarray | None = None) -> None:
        rows = [(key, offset, segment, length) for key, places in self._recent.items() for segment, offset, length in places]
        parts = [self._sorted, np.array(rows, ENTRY)] + ([] if more is None else [more.astype(ENTRY, copy=False)])
        self._recent, self._count = {}, 0
        merged = np.concatenate(parts)
        self._sorted = merged[np.argsort(merged["key"], kind="stable")]
