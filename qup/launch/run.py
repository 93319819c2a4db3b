"""Runs one stage from its frozen job: `python -m qup.launch.run JOB.json [--worker i/W]`.

The same code path serves the local launcher's forked children and SLURM's jobs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from qup.config.fingerprint import digest, fields
from qup.context import Context
from qup.errors import CorruptArtifact, Interrupted, LeaseLost, QupError, StoreError
from qup.launch.code import code_digest
from qup.launch.jobs import Job
from qup.launch.weights import let_go
from qup.pipeline.kinds import KINDS
from qup.store import Artifact, Lease, Store
from qup.store.store import Record, package_versions, write_json

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


def load_inputs(store: Store, job: Job) -> dict[str, Artifact]:
    """The stage's inputs and those hints that are there; StoreError names what is missing."""
    found: dict[str, Artifact] = {}
    missing = []
    for name, ref in job.inputs.items():
        artifact = store.get(*ref)
        if artifact is None:
            missing.append(f"{name} ({ref})")
        else:
            found[name] = artifact
    if missing:
        raise StoreError(f"{job.ref}: inputs missing from {store.root}: {', '.join(missing)}")
    for name, ref in job.hints.items():
        artifact = store.get_sound(*ref)
        if artifact is not None:
            found[name] = artifact
    return found


def record_of(job: Job, inputs: dict[str, Artifact]) -> Record:
    """What the manifest says of this stage run."""
    kind = KINDS[job.ref.kind]
    needed = {name: inputs[name] for name in job.inputs}
    view_fields = fields(job.view)
    return Record(
        stage=kind.name,
        version=kind.version,
        key=job.ref.key,
        fields=view_fields,
        inputs={name: {"stage": artifact.stage, "key": artifact.key, "digest": artifact.digest} for name, artifact in needed.items()},
        code=code_digest(kind.module),
        identity=digest([kind.name, kind.version, view_fields, {name: artifact.digest for name, artifact in needed.items()}]),
        study=job.study,
    )


def execute(job: Job, stopping: Callable[[], bool], log: logging.Logger) -> str:
    """Computes, adopts or finds the artifact: returns `stored`, `adopted` or `ran`.

    Raises Interrupted where it was asked to stop, and whatever the stage raises.
    """
    store = Store(job.store, job.lease_s)
    if job.replace:
        _retire(store, job, log)
    if store.exists(*job.ref) and store.get_sound(*job.ref) is not None:
        return "stored"
    inputs = load_inputs(store, job)
    record = record_of(job, inputs)
    lease = store.acquire(*job.ref, {"study": job.study, "job": os.environ.get("SLURM_JOB_ID", "")}, stopping)
    if lease is None:
        if store.exists(*job.ref):
            return "stored"
        raise Interrupted("asked to stop while another process held the claim")
    lease.watch()
    try:
        twin = None if job.replace else store.find(job.ref.kind, record.identity)
        if twin is not None and not twin.pruned and store.adopt(twin, record, lease) is not None:
            log.info("adopted %s/%s: equal work", twin.stage, twin.key)
            return "adopted"
        _compute(store, job, inputs, record, lease, stopping, log)
        return "ran"
    finally:
        lease.release()


def _retire(store: Store, job: Job, log: logging.Logger) -> None:
    """Sets aside an artifact that is to be computed anew, unless another process has already done so."""
    found = store.get_sound(*job.ref)
    if found is None:
        return
    if found.pruned or found.manifest["code"] != code_digest(KINDS[job.ref.kind].module):
        log.info("%s is computed anew; the old one is kept at %s", job.ref, store.quarantine(*job.ref))


def _context(store: Store, job: Job, out: Path, lease: Lease | None, stopping: Callable[[], bool], log: logging.Logger) -> Context:
    def stop() -> bool:
        return stopping() or (lease is not None and lease.lost.is_set())

    def ignore(done: float, total: float, unit: str) -> None:
        """A worker of a wide stage has no claim of its own to show progress in."""

    work = store.work(*job.ref)
    work.mkdir(parents=True, exist_ok=True)
    store.shared.mkdir(parents=True, exist_ok=True)
    return Context(
        out=out,
        work=work,
        shared=store.shared,
        resources=job.resources,
        key=job.ref.key,
        study=job.study,
        progress=lease.progress if lease is not None else ignore,
        stopping=stop,
        log=log,
    )


def _load_stage(job: Job) -> ModuleType:
    module = importlib.import_module(KINDS[job.ref.kind].module)
    if "torch" in sys.modules:
        import torch

        owner = getattr(job.view, "model", None) or getattr(job.view, "reward", None)
        torch.set_num_threads(getattr(owner, "threads", 1))
    return module


def _compute(
    store: Store, job: Job, inputs: dict[str, Artifact], record: Record, lease: Lease, stopping: Callable[[], bool], log: logging.Logger
) -> None:
    if job.ref.kind == "evaluate" and any(artifact.pruned for artifact in inputs.values()):
        raise StoreError(
            f"{job.ref}: the weights to evaluate were taken away (store.keep_weights); launch again, and they are trained anew"
        )
    began, cpu_began = time.time(), _cpu_seconds()
    module = _load_stage(job)
    out = store.draft(*job.ref)
    ctx = _context(store, job, out, lease, stopping, log)
    _announcement(store, job).touch()
    try:
        if KINDS[job.ref.kind].sharded:
            count = module.plan(job.view, inputs, ctx)
            todo = [index for index in range(count) if not ctx.has_shard(index)]
            if todo:
                log.info("%d of %d shards to do", len(todo), count)
                module.shard(job.view, inputs, ctx, todo)
            metrics = module.merge(job.view, inputs, ctx)
        else:
            metrics = module.run(job.view, inputs, ctx)
    except Interrupted:
        shutil.rmtree(out, ignore_errors=True)
        lease.check()
        raise
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    facts: dict[str, Any] = {
        "units": job.units,
        "seconds": time.time() - began,
        "cpu_seconds": _cpu_seconds() - cpu_began,
        "finished": time.time(),
        "gpus": job.resources.gpus,
        "max_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    store.publish(out, record, metrics, lease, facts)


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def execute_worker(job: Job, worker: int, workers: int, stopping: Callable[[], bool], log: logging.Logger) -> str:
    """Does this worker's share of a wide stage's shards; the merge is a run of its own after all workers."""
    store = Store(job.store, job.lease_s)
    if store.exists(*job.ref):
        return "stored"
    inputs = load_inputs(store, job)
    label = {"study": job.study, "job": os.environ.get("SLURM_JOB_ID", "")}
    lease = store.acquire(job.ref.kind, f"{job.ref.key}.worker{worker}of{workers}", label, stopping)
    if lease is None:
        raise Interrupted("asked to stop while another process held this worker's claim")
    lease.watch()
    try:
        module = _load_stage(job)
        ctx = _context(store, job, store.work(*job.ref), lease, stopping, log)
        count = module.plan(job.view, inputs, ctx)
        todo = [index for index in range(worker, count, workers) if not ctx.has_shard(index)]
        if todo:
            module.shard(job.view, inputs, ctx, todo)
        return "ran"
    finally:
        lease.release()


def check_packages(job: Job) -> None:
    """Raises QupError where this environment is not the one the job was planned with."""
    found = package_versions()
    other = [
        f"{name} {found.get(name, 'missing')} here, {version} at submission"
        for name, version in job.packages.items()
        if found.get(name) != version
    ]
    if other:
        raise QupError(f"{job.ref}: other packages than at submission: {'; '.join(other)}")


def run_follower(path: Path, stop: StopFlag) -> int:
    """One rank above 0 of a training that SLURM started on several tasks: works along, publishes nothing.

    It waits until rank 0 has claimed the stage and says that there is something to compute.
    """
    stop.install()
    job = Job.load(path)
    log = logging.getLogger(f"qup.{job.ref.kind}")
    store = Store(job.store, job.lease_s)
    try:
        while not _announced(store, job):
            if store.exists(*job.ref):
                return 0
            if stop():
                return INTERRUPTED
            time.sleep(0.2)
        inputs = load_inputs(store, job)
        module = _load_stage(job)
        out = store.work(*job.ref) / f"rank-{os.environ['RANK']}"
        out.mkdir(parents=True, exist_ok=True)
        module.run(job.view, inputs, _context(store, job, out, None, stop, log))
    except Interrupted as error:
        log.warning("interrupted: %s", error)
        return INTERRUPTED
    except BaseException as error:
        if store.exists(*job.ref):
            # rank 0 was faster: it has published, and taken the work folder away with the reports in it
            return 0
        log.error("%s", error if isinstance(error, QupError) else traceback.format_exc())
        return 1
    return 0


def _announcement(store: Store, job: Job) -> Path:
    mark = f"{os.environ.get('SLURM_JOB_ID', 'local')}.{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    return store.work(*job.ref) / f"rank-0-works-{mark}"


def _announced(store: Store, job: Job) -> bool:
    return _announcement(store, job).exists()


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
    if job.ref.kind == "evaluate" and worker is None:
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
    corrupt = [error.stage, error.key] if isinstance(error, CorruptArtifact) else None
    try:
        write_json(job.failure, {"ref": list(job.ref), "label": job.label, "error": text, "corrupt": corrupt, "time": time.time()})
    except OSError as failure:
        logging.getLogger("qup").error("the failure could not be recorded: %s", failure)


def read_failure(path: Path) -> dict[str, Any] | None:
    """A recorded failure, None where there is none."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    assert isinstance(content, dict)
    return content


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m qup.launch.run", description="Run one stage from its frozen job.")
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
