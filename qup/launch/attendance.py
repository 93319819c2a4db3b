"""Who is at work on a study: launches and drivers, which start what waits, each with a heartbeat while it lives."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qup.store import Lease
from qup.store.lease import holder_is_dead, read_lease

LEASE_S = 60.0
SILENT_S = 600.0
"""A heartbeat from another machine that is older counts as none: clocks differ, and NFS shows changes late."""


@contextmanager
def attending(study_dir: Path, what: str) -> Iterator[Path]:
    """Within, waiting stages of the study are not taken for forgotten; `what` is a word for people: launch, driver.

    Yields its lease.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}.lease"
    lease = Lease(study_dir / "attending" / name, LEASE_S, {"what": what})
    lease.acquire()
    lease.watch()
    try:
        yield lease.path
    finally:
        lease.release()
        with suppress(OSError):  # not empty: others are at work, or the study was registered
            lease.path.parent.rmdir()
            study_dir.rmdir()


def attendants(study_dir: Path, own: Path | None = None) -> Iterator[dict[str, Any]]:
    """Each that is alive, but for the one whose lease is `own`: `what` it is, its `host` and its `pid`."""
    folder = study_dir / "attending"
    for path in sorted(folder.glob("*.lease")) if folder.is_dir() else ():
        content = read_lease(path)
        if content is None or path == own:
            continue
        if holder_is_dead(content):
            path.unlink(missing_ok=True)
            continue
        try:
            silent = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        if silent < SILENT_S:
            yield content


def attended(study_dir: Path, what: str | None = None) -> bool:
    """Whether anybody who may start the study's waiting stages is alive, or anybody of one sort."""
    return any(what is None or there.get("what") == what for there in attendants(study_dir))
