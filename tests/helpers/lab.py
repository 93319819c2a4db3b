"""Runs the real lab in a folder of its own, by the command a user types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, *overrides: str, experiment: str = "lab_small") -> list[str]:
    return [
        sys.executable,
        str(ROOT / "launch.py"),
        "-m",
        f"experiment={experiment}",
        f"store.dir={folder / 'store'}",
        f"study.dir={folder / 'multirun'}",
        *overrides,
    ]


def environment() -> dict[str, str]:
    """Ours, without what DeepSpeed's import in this process left there: a user's shell has none of it."""
    ours = {name: value for name, value in os.environ.items() if name not in ("DS_ACCELERATOR", "LOCAL_RANK")}
    return ours | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


def launch(folder: Path, *overrides: str, timeout: float = 900, experiment: str = "lab_small") -> tuple[int, str]:
    """Exit status and output of a whole study."""
    done = subprocess.run(
        command(folder, *overrides, experiment=experiment),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return done.returncode, done.stdout


def cells(folder: Path, study: str = "lab_small") -> str:
    return (folder / "multirun" / study / "report" / "cells.csv").read_text()
