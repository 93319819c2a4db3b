"""The program `vllm`, played by tests/helpers/fake_server.py."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SERVER = Path(__file__).with_name("fake_server.py")


def install(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """An environment folder with `bin/vllm` in it, for `vllm.command`; notes of its starts lie in `notes` inside."""
    program = folder / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{SERVER}" "$@"\n')
    program.chmod(0o755)
    (folder / "notes").mkdir()
    patch.setenv("FAKE_VLLM_NOTES", str(folder / "notes"))
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


def starts(folder: Path) -> list[dict[str, Any]]:
    """What was noted at each start: arguments, pid."""
    return [json.loads(path.read_text()) for path in sorted((folder / "notes").glob("start.*"))]


def flag(start: dict[str, Any], name: str) -> str:
    """A flag's value at that start."""
    return str(start["arguments"][start["arguments"].index(f"--{name}") + 1])


def gone(pid: int) -> bool:
    """Whether a process ends within a few seconds."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.02)
    return False
