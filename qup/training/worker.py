"""One rank as a process of its own: `python -m qup.training.worker FOLDER`, with its place in RANK, WORLD_SIZE, LOCAL_RANK.

FOLDER holds the frozen job; the rank leaves its outcome there as rank-<n>.json before it takes anything down, so a fault
in tearing down turns no success into a failure.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from qup.errors import Interrupted, QupError
from qup.files import write_text
from qup.training.job import Job

FAILED, INTERRUPTED, SILENCE = 1, 75, 70
"""Exit statuses: an error, asked to stop, another rank fell silent."""


class Outbox:
    """Where a rank leaves what its parent reads."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self.written = 0.0
        self._write(f"rank-{rank}.pid", os.getpid())

    def put(self, status: str, **facts: Any) -> None:
        """The rank's outcome: done, interrupted, error or silence."""
        self._write(f"rank-{self.rank}.json", {"status": status, "time": time.time(), **facts})

    def progress(self, done: float, total: float, unit: str) -> None:
        """Kept fresh by rank 0, twice a second at most."""
        if self.rank == 0 and (time.monotonic() - self.written > 0.5 or done == total):
            self.written = time.monotonic()
            self._write("progress.json", [done, total, unit])

    def _write(self, name: str, content: Any) -> None:
        write_text(self.folder / name, json.dumps(content))


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however that comes about (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(FAILED)


def main(folder: Path) -> None:
    if parent := os.environ.get("QUP_PARENT"):
        die_with_parent(int(parent))
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    outbox = Outbox(folder, rank)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda received, frame: asked.append(received))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, format=f"%(asctime)s rank {rank} %(levelname)s %(message)s")
    log = logging.getLogger("qup.train")

    def leave(status: int) -> None:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def on_silence(silent: int) -> None:
        outbox.put("silence", rank=silent)
        log.error("rank %d has fallen silent; leaving", silent)
        leave(SILENCE)

    def finished(metrics: dict[str, Any]) -> None:
        outbox.put("done", metrics=metrics)
        leave(0)

    try:
        job = Job.load(folder)
        from qup.training.ranks import Meeting, World, pick_device, quiet_deepspeed

        quiet_deepspeed()
        from qup.training.loop import Run, Ways

        meeting = Meeting(folder, os.environ["QUP_MASTER"]) if "QUP_MASTER" in os.environ else None
        stop = folder / "stop"
        ways = Ways(log, lambda: bool(asked) or stop.exists(), outbox.progress, finished, on_silence, meeting)
        world = World(rank, size, local_rank, pick_device(job.view.model.device, local_rank))
        Run(job, world, ways).run()
    except Interrupted as error:
        outbox.put("interrupted", message=str(error))
        leave(INTERRUPTED)
    except BaseException as error:
        trace = traceback.format_exc()
        log.error("%s", error if isinstance(error, QupError) else trace)
        outbox.put("error", kind=type(error).__name__, ours=isinstance(error, QupError), message=str(error), trace=trace)
        leave(FAILED)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
