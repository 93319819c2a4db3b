"""Requests and tokens a minute, stated once and kept by all processes of all studies that share a store.

The bucket is a small file; whoever wants from it locks it (flock, which Linux carries over NFS as a byte-range lock and
drops when the holder dies), refills it by the time that passed, and takes. The time is the latest that any process has
seen, so clocks that differ between machines can only make it stricter.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from qup.errors import StoreError

_LEASE_S = 0.2
_ASTRAY_S = 60.0
_BYTES = 64


class SharedBucket:
    """`per_minute` units a minute, and never more in any minute; a single want above the bucket's size goes through as debt."""

    def __init__(self, path: Path, per_minute: float, clock: Callable[[], float] = time.time) -> None:
        self.size = max(1.0, per_minute / 60)
        self.rate = max(per_minute - self.size, per_minute / 2) / 60
        self._path, self._clock = path, clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="qup-bucket")
        self._turn = asyncio.Lock()
        self._leased = 0.0
        self._leased_until = float("-inf")

    async def take(self, units: float) -> None:
        """Waits until `units` may be used."""
        async with self._turn:
            while True:
                if self._clock() > self._leased_until:
                    self._leased = 0.0
                if self._leased >= units:
                    self._leased -= units
                    return
                missing = units - self._leased
                granted, wait = await asyncio.get_running_loop().run_in_executor(self._thread, self._lease, missing)
                if granted:
                    self._leased += granted
                    self._leased_until = self._clock() + 2 * _LEASE_S
                else:
                    await asyncio.sleep(wait)

    async def settle(self, units: float) -> None:
        """Corrects what was taken by a guess: positive, more was used; negative, less."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._correct, units)

    def close(self) -> None:
        """Ends its thread; what was leased and not used is lost for a fraction of a second."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _lease(self, missing: float) -> tuple[float, float]:
        """(granted, seconds to wait): grants what is missing and a little ahead, so that not every request locks the file."""
        with self._locked() as (handle, level, now):
            need = min(missing, self.size)
            granted = 0.0 if level < need else max(missing, min(level, self.rate * _LEASE_S))
            self._write(handle, level - granted, now)
        return granted, 0.0 if granted else max((need - level) / self.rate, 0.005)

    def _correct(self, units: float) -> None:
        with self._locked() as (handle, level, now):
            self._write(handle, min(level - units, self.size), now)

    @contextmanager
    def _locked(self) -> Iterator[tuple[int, float, float]]:
        """(descriptor, level, time) of the bucket, refilled up to now, while nobody else has it; nonsense is an empty bucket."""
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                now = self._clock()
                try:
                    level, at = (float(part) for part in os.pread(handle, _BYTES, 0).split())
                except ValueError:
                    level, at = 0.0, now
                if not (at <= now + _ASTRAY_S and level <= self.size):
                    level, at = 0.0, now
                yield handle, min(level + max(now - at, 0.0) * self.rate, self.size), max(now, at)
            finally:
                os.close(handle)
        except OSError as error:
            raise StoreError(
                f"the rate limit's file {self._path} can't be used: {error}; oracle.rpm and oracle.tpm need a store on which flock works"
            ) from error

    @staticmethod
    def _write(handle: int, level: float, now: float) -> None:
        os.pwrite(handle, f"{level:.6f} {now:.6f}".encode().ljust(_BYTES), 0)
