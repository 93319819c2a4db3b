"""The errors qup raises on purpose. Each is one message for the person at the keyboard, never a traceback."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass


class QupError(Exception):
    """Anything the user can mend: the message names the thing, its value, and what would be valid."""


class InputError(QupError):
    """A file, row, model directory or endpoint that can't be used as given."""


class StoreError(QupError):
    """The store can't be read or written."""


class CorruptArtifact(StoreError):
    """A published artifact whose bytes no longer match its manifest.

    `stage` and `key` name it, so that a launcher can set it aside and compute it anew.
    """

    def __init__(self, stage: str, key: str, why: str) -> None:
        super().__init__(f"artifact {stage}/{key} is corrupt: {why}")
        self.stage, self.key, self.why = stage, key, why


class LeaseLost(StoreError):
    """Another process took this stage over while we were away; our work is discarded."""


class Interrupted(QupError):
    """The stage was asked to stop and left a state from which the next run goes on."""


class BudgetExceeded(QupError):
    """A plan or a running stage would spend more than the user allowed."""


_MACHINE_FAULTS = {
    errno.ENOSPC: "the disk is full; free space, or choose another place",
    errno.EDQUOT: "the quota is used up; free space, or choose another place",
    errno.EACCES: "may not be read or written by you; choose another place, or ask for the right",
    errno.EPERM: "may not be changed by you; choose another place, or ask for the right",
    errno.EROFS: "lies on a file system that can't be written; choose another place",
    errno.EIO: "the disk or the network reports a fault in reading or writing",
    errno.ESTALE: "the file server has lost sight of it; try again",
}
"""Faults of the machine that can turn up at any file, and what the user can do."""


def machine_fault(error: OSError) -> str | None:
    """One message where the machine is at fault; None where it may be a bug of ours."""
    why = _MACHINE_FAULTS.get(error.errno or 0)
    return f"{error.filename or 'a file'}: {why} ({error.strerror})" if why else None


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a configuration: where, what it is, and what would be valid."""

    key: str
    value: object
    valid: str

    def __str__(self) -> str:
        return f"{self.key}={self.value!r}: {self.valid}"


class ConfigError(QupError):
    """Every fault found in a configuration, together."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"configuration refused, {count}:", *(f"  {fault}" for fault in self.faults)]))
