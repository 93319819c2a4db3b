"""Why a SLURM job ended without a result, in words, and what it said before a stage had a log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from qup.files import tail
from qup.launch.process import INTERRUPTED, NO_PYTHON, NO_STORE

TAIL_BYTES = 1 << 16
NOISE = re.compile(
    r"^(submitit (INFO|WARNING|ERROR)|srun: (error: .*: tasks? [\d,-]+: |Terminating|Job step aborted|First task exited|StepId=|launch/slurm)"
    r"|slurmstepd\S*: error: \*\*\* \w+ \S+ ON .* CANCELLED AT )|^\s*$"
)
"""What is said by every job, or of every end."""
_TASK = re.compile(r"^srun: error: \S+: tasks? ([\d,-]+): ", re.MULTILINE)
_OTHERS_WAITED = "srun: First task exited"
IN_WORDS = {
    "OUT_OF_MEMORY": "out of memory",
    "TIMEOUT": "out of time",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node failed to boot",
    "DEADLINE": "missed its deadline",
}


def decode(text: str) -> int:
    """squeue prints wait(2)'s status, sacct `exit:signal`."""
    if ":" in text:
        code, _, number = text.partition(":")
        return 128 + int(number) if number not in ("", "0") else int(code or 0)
    if not text.isdigit():
        return 0
    raw = int(text)
    return 128 + (raw & 127) if raw & 127 else raw >> 8


def status_in_words(status: int) -> str:
    """An exit status for people."""
    match status:
        case 0:
            return "ended without a result"
        case s if s == INTERRUPTED:
            return "interrupted too often; it goes on from its last checkpoint or shard when retried"
        case s if s == NO_PYTHON:
            return "the Python environment is not there on its node"
        case s if s == NO_STORE:
            return "the store is not visible on its node"
        case 137:
            return "killed by SIGKILL (out of memory, perhaps)"
        case s if s > 128:
            return f"killed by signal {s - 128}"
    return f"ended with status {status}"


def exit_status(study_dir: Path, job: str) -> int:
    try:
        return int((study_dir / "slurm" / "exits" / job).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0


def outputs(study_dir: Path, submission: str, job: str) -> list[Path]:
    """What a job, `123` or `123_4`, and its tasks wrote outside of the stage's log."""
    folder = study_dir / "slurm" / submission
    named = re.compile(rf"{job}_\d+_log\.(out|err)")
    return sorted(path for path in folder.iterdir() if named.fullmatch(path.name)) if folder.is_dir() else []


def last_words(paths: Sequence[Path]) -> list[str]:
    """The last lines of outputs that say something of this job."""
    return [line for path in paths for line in tail(path, TAIL_BYTES).splitlines() if not NOISE.search(line)]


def first_rank(paths: Sequence[Path]) -> str:
    """The rank of several that ended before the others, as srun tells it; "" where it doesn't."""
    for path in paths:
        said = tail(path, TAIL_BYTES)
        if _OTHERS_WAITED in said and (found := _TASK.search(said)):
            return found[1]
    return ""
