"""What this machine has to give: cores, memory, GPUs, without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """Cores, bytes of memory, and the ids of GPUs."""

    cores: int
    memory: int
    gpus: tuple[str, ...]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def this_machine() -> Machine:
    """Cores this process may use, memory within its limits, GPUs that are visible."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            memory = min(memory, int(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return Machine(cores(), memory, _gpus())


def _gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(entry for entry in visible.split(",") if entry and entry != "-1")
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(listed.stdout.split()) if listed.returncode == 0 else ()
