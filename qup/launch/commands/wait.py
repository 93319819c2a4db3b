"""`qup wait`: until a study ends."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from qup.launch.slurm.commands import Slurm
from qup.launch.slurm.site import on_slurm
from qup.launch.status import study_status
from qup.launch.watch import summary, watch
from qup.study import find_study


def wait(study: str, shown: Path, console: Console) -> int:
    folder = find_study(study, shown, ran=True).folder
    status = watch(folder, console)
    if console.is_terminal:
        console.print(summary(study_status(folder, Slurm() if on_slurm(folder) else None)))
    return status
