"""The log of one stage."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from qup.errors import InputError
from qup.pipeline.kinds import KINDS
from qup.study import find_cell


def show_log(study: str | None, shown: Path, cell: str, stage: str, *, follow: bool) -> int:
    """Prints the log; with `follow` goes on as it grows, until interrupted."""
    found, entry = find_cell(cell, study, shown)
    if stage not in KINDS:
        raise InputError(f"stage {stage!r}: there are {', '.join(KINDS)}")
    paths = [found.folder / "logs" / f"{one.kind}-{one.key}.log" for one in entry.refs(stage)]
    if not paths:
        raise InputError(f"stage {stage}: cell {entry.label} has none; it has {', '.join(entry.stages)}")
    there = [path for path in paths if path.exists()]
    if not there:
        raise InputError(f"{stage} of {entry.label}: no log; it was stored before this study, or has not started ({paths[0]})")
    for path in there:
        if len(paths) > 1:
            print(f"==> {path}")
        with path.open(errors="replace") as stream:
            sys.stdout.write(stream.read())
            while follow:
                sys.stdout.flush()
                time.sleep(0.5)
                sys.stdout.write(stream.read())
    return 0
