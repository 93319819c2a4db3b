"""`python -m qup.tracking.follower FOLDER PID`: carries one run's local log to W&B while the stage goes on.

It ends when the stage has closed the run, or is gone: then what is there has been sent (online), or is left to the requeued
stage or to `qup sync` (offline, where half a run would stand beside the whole one).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from qup.files import read_json
from qup.tracking.replay import already, replay, send, start
from qup.tracking.spec import END, Spec

POLL_S = 0.3


def follow(folder: Path, parent: int) -> int:
    """Follows until the end, or until process `parent` is gone; returns the exit status."""
    spec = Spec.load(folder)
    run, sent = None, -1
    if spec.mode == "online":
        run = start(spec, folder)
        sent = already(run)
    end = None
    while os.getppid() == parent and (end := read_json(folder / END)) is None:
        if run is not None:
            sent = send(run, spec.history(folder), sent)
        time.sleep(POLL_S)
    if end is None:
        if run is not None:
            send(run, spec.history(folder), sent)
            run.finish(exit_code=1)
        return 0
    if run is None:
        replay(spec, folder, spec.history(folder), end.get("summary", {}))
        return 0
    send(run, spec.history(folder), sent)
    run.summary.update(end.get("summary", {}))
    run.finish(exit_code=1 if end.get("failed") else 0)
    return 0


if __name__ == "__main__":
    sys.exit(follow(Path(sys.argv[1]), int(sys.argv[2])))
