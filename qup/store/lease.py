"""A lease on a stage that survives its holder's death, on local disks and NFS alike.

The lease is a file made by link(2), which either succeeds for one process or fails. Its holder rewrites
it with a rising beat; who sees the same beat for `ttl` seconds by its own clock may take the lease over,
no clocks are compared. On the same machine a dead holder is seen at once. A frozen holder that wakes up
finds another's name in the file: it has lost, and discards its work.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from qup.errors import LeaseLost

log = logging.getLogger(__name__)
STALE_TRIES = 20
"""Reads of a lease that NFS may answer with a stale handle, for it is replaced with every beat."""


def _machine() -> str:
    """Names this boot of this machine and its process namespace, within which a pid means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """The start time of a process in clock ticks; empty where there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def read_lease(path: Path) -> dict[str, Any] | None:
    """The lease's content; None where nobody holds it. A file that NFS says was replaced under the reader is read again."""
    for tries in range(STALE_TRIES):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            if error.errno != errno.ESTALE or tries == STALE_TRIES - 1:
                raise
            continue
        return content if isinstance(content, dict) else None
    return None


def holder_is_dead(content: dict[str, Any]) -> bool:
    """True where the holder ran on this very machine and is gone; False where it lives or can't be seen."""
    return content.get("machine") == _machine() and _started(int(content.get("pid", 0))) != content.get("started")


class Lease:
    """One process's lease. `acquire` takes it or returns False; `watch` keeps it; `release` gives it back."""

    def __init__(self, path: Path, ttl: float, label: dict[str, Any] | None = None) -> None:
        self.path, self.ttl = path, ttl
        self.owner = secrets.token_hex(8)
        self.lost = threading.Event()
        self._label = label or {}
        self._progress: dict[str, Any] | None = None
        self._beat = 0
        self._seen: tuple[str, float] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = time.time()

    def _content(self) -> dict[str, Any]:
        pid = os.getpid()
        return {
            "owner": self.owner,
            "machine": _machine(),
            "host": socket.gethostname(),
            "pid": pid,
            "started": _started(pid),
            "beat": self._beat,
            "began": self._began,
            "progress": self._progress,
            **self._label,
        }

    def _write_beside(self) -> Path:
        beside = self.path.with_name(f".{self.path.name}.{self.owner}.{secrets.token_hex(3)}")
        beside.write_text(json.dumps(self._content()), encoding="utf-8")
        return beside

    def _create(self) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._write_beside()
        try:
            os.link(beside, self.path)
        except FileExistsError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        return True

    def acquire(self) -> bool:
        """One attempt; call again until it succeeds or the artifact appears. Takes over an abandoned one."""
        if self._create():
            return True
        content = read_lease(self.path)
        if content is None:
            return self._create()
        if holder_is_dead(content):
            return self._take_over(content)
        mark = f"{content.get('owner')}/{content.get('beat')}"
        if self._seen is None or self._seen[0] != mark:
            self._seen = (mark, time.monotonic())
            return False
        if time.monotonic() - self._seen[1] < self.ttl:
            return False
        return self._take_over(content)

    def _take_over(self, stale: dict[str, Any]) -> bool:
        tomb = self.path.with_name(f".{self.path.name}.tomb.{self.owner}")
        try:
            os.rename(self.path, tomb)
        except FileNotFoundError:
            return self._create()
        found = read_lease(tomb)
        renewed = found is not None and (found.get("owner"), found.get("beat")) != (stale.get("owner"), stale.get("beat"))
        try:
            if renewed:
                try:
                    os.link(tomb, self.path)
                except FileExistsError:
                    pass
                return False
            log.info("took over the lease %s of %s pid %s", self.path.name, stale.get("host"), stale.get("pid"))
            return self._create()
        finally:
            tomb.unlink(missing_ok=True)

    def held(self) -> bool:
        """Whether the file still names us."""
        if self.lost.is_set():
            return False
        content = read_lease(self.path)
        return content is not None and content.get("owner") == self.owner

    def check(self) -> None:
        """Raises LeaseLost where another process has taken over."""
        if not self.held():
            self.lost.set()
            raise LeaseLost(f"{self.path.stem} was taken over by another process; this run's work is discarded")

    def progress(self, done: float, total: float, unit: str) -> None:
        """What the lease shows to onlookers; written with the next beat."""
        self._progress = {"done": done, "total": total, "unit": unit}

    def watch(self) -> None:
        """Starts the heartbeat in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        interval = max(0.2, min(5.0, self.ttl / 6))
        shown = self._progress
        waited = 0.0
        while not self._stop.wait(min(0.5, interval)):
            waited += min(0.5, interval)
            if waited < interval and self._progress == shown:
                continue
            waited, shown = 0.0, self._progress
            try:
                if not self.held():
                    self.lost.set()
                    return
                self._beat += 1
                os.replace(self._write_beside(), self.path)
            except OSError as error:
                log.warning("the lease %s could not be renewed: %s", self.path.name, error)

    def release(self) -> None:
        """Gives the lease back, if it is still ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.held():
            self.path.unlink(missing_ok=True)
