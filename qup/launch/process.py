"""Runs one stage from its frozen job: `python -m qup.launch.process JOB.json [--worker i/W]`.

The same code path serves the local launcher's forked children and SLURM's jobs.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path

from qup.errors import CorruptArtifact, Interrupted, LeaseLost, QupError
from qup.files import write_json
from qup.launch.execution import check_packages, execute, execute_follower, execute_worker
from qup.launch.job import Job
from qup.launch.weights import let_go
from qup.pipeline import KINDS
from qup.store import Store

INTERRUPTED = 75
"""Exit status of a stage that was asked to stop and can go on from where it was."""
CORRUPT = 76
"""Exit status of a stage that found one of its inputs corrupt; the artifact was set aside."""
OUTCOMES = {"ran": 0, "adopted": 77, "stored": 78}
"""Exit statuses by which a stage that ended well tells the launcher on its own machine how."""
NO_PYTHON, NO_STORE = 81, 82
"""Exit statuses of the shell lines that look for the Python environment and for the store on the node."""
LOG_FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"


def log_to_stderr() -> None:
    """Sets logging up, in a process that runs a stage or drives a study."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)


class StopFlag:
    """Set by SIGTERM or SIGUSR2."""

    def __init__(self) -> None:
        self.stopped = False
        self.number: int | None = None
        """Which signal it was."""

    def install(self) -> None:
        """Takes over the signals by which schedulers and launchers ask for an end."""
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _stop(self, number: int, *_: object) -> None:
        self.stopped, self.number = True, number

    def __call__(self) -> bool:
        return self.stopped


def run_follower(path: Path, stop: StopFlag) -> int:
    """One rank above 0 of a training that SLURM started on several tasks: works along, publishes nothing."""
    stop.install()
    job = Job.load(path)
    log = logging.getLogger(f"qup.{job.ref.kind}")
    try:
        execute_follower(job, stop, log)
    except Interrupted as error:
        log.warning("interrupted: %s", error)
        return INTERRUPTED
    except BaseException as error:
        if Store(job.store).exists(*job.ref):
            # rank 0 was faster: it has published, and taken the work folder away with the reports in it
            return 0
        log.error("%s", error if isinstance(error, QupError) else traceback.format_exc())
        if not job.failure.exists():
            _record_failure(job, error)
        return 1
    return 0


def run_job(path: Path, worker: tuple[int, int] | None = None, stop: StopFlag | None = None, *, tell: bool = False) -> int:
    """Runs the job frozen at `path` in this process; returns the exit status. Failures are recorded beside the job.

    `tell`: success has the statuses of OUTCOMES in place of 0 alone.
    """
    stop = stop or StopFlag()
    stop.install()
    job = Job.load(path)
    log = logging.getLogger(f"qup.{job.ref.kind}")
    job.failure.unlink(missing_ok=True)
    try:
        check_packages(job)
        done = execute(job, stop, log) if worker is None else execute_worker(job, *worker, stop, log)
    except Interrupted as error:
        log.warning("interrupted: %s", error)
        return INTERRUPTED
    except LeaseLost as error:
        log.warning("%s", error)
        return INTERRUPTED
    except CorruptArtifact as error:
        aside = Store(job.store).quarantine(error.stage, error.key)
        log.error("%s; set aside at %s", error, aside)
        _record_failure(job, error)
        return CORRUPT
    except BaseException as error:
        log.error("%s", error if isinstance(error, QupError) else traceback.format_exc())
        _record_failure(job, error)
        return 1
    log.info("%s: %s", job.ref, done)
    if worker is None and any(KINDS[ref.kind].weights or ref.kind == "responses" for ref in job.inputs.values()):
        _let_weights_go(job, log)
    return OUTCOMES[done] if tell else 0


def _let_weights_go(job: Job, log: logging.Logger) -> None:
    """What goes wrong here is no fault of the evaluation; the study's end tries again."""
    try:
        for ref in let_go(Store(job.store, job.lease_s), job.study_dir, job.ref):
            log.info("%s: its weights are evaluated and were let go", ref)
    except (OSError, QupError) as error:
        log.warning("weights could not be let go: %s", error)


def _record_failure(job: Job, error: BaseException) -> None:
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, QupError):
        text = f"{type(error).__name__}: {text}"
    rank, ranks = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if ranks != "1" and not re.search(r"\brank \d", text):
        text = f"rank {rank} of {ranks}: {text}"
    write_failure(job, text, [error.stage, error.key] if isinstance(error, CorruptArtifact) else None)


def write_failure(job: Job, text: str, corrupt: list[str] | None = None) -> None:
    """Writes down why a job failed, for status and the next launch."""
    try:
        write_json(job.failure, {"ref": list(job.ref), "label": job.label, "error": text, "corrupt": corrupt, "time": time.time()})
    except OSError as failure:
        logging.getLogger("qup").error("the failure could not be recorded: %s", failure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m qup.launch.process", description="Run one stage from its frozen job.")
    parser.add_argument("job", type=Path)
    parser.add_argument("--worker", help="i/W: this worker's share of a wide stage's shards")
    args = parser.parse_args()
    log_to_stderr()
    worker = None
    if args.worker:
        index, _, count = args.worker.partition("/")
        worker = (int(index), int(count))
    status = run_job(args.job, worker)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
