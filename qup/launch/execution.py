"""A stage's execution: found, adopted from equal work, or computed under its lease and published."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import resource
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from qup.config.fingerprint import digest, fields
from qup.errors import Interrupted, QupError, StoreError
from qup.launch.code import stage_code
from qup.launch.job import Job
from qup.pipeline.context import Context
from qup.pipeline.kinds import KINDS
from qup.store import Artifact, Lease, Store
from qup.store.store import Record, package_versions

TELL_S = 60.0
"""Seconds between two words of a stage's progress in its log."""


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
        code=stage_code(kind.name, job.store),
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
        raise Interrupted("asked to stop while another process held the lease")
    lease.watch()
    try:
        equal = None if job.replace else store.find(job.ref.kind, record.identity)
        if equal is not None and not equal.pruned and _may_adopt(job, equal, record, log) and store.adopt(equal, record, lease) is not None:
            log.info("adopted %s/%s: equal work", equal.stage, equal.key)
            return "adopted"
        _compute(store, job, inputs, record, lease, stopping, log)
        return "ran"
    finally:
        lease.release()


def _may_adopt(job: Job, equal: Artifact, record: Record, log: logging.Logger) -> bool:
    if equal.manifest["code"] == record.code:
        return True
    done = "is computed instead of adopting it" if job.own_code else "is adopted all the same"
    log.warning(
        "%s/%s is equal work, made by other code of the same version; %s %s (study.other_code)", equal.stage, equal.key, job.ref, done
    )
    return not job.own_code


def _retire(store: Store, job: Job, log: logging.Logger) -> None:
    """Sets aside an artifact that is to be computed anew, unless another process has already done so."""
    found = store.get_sound(*job.ref)
    if found is None:
        return
    if found.pruned or found.manifest["code"] != stage_code(job.ref.kind, job.store):
        log.info("%s is computed anew; the old one is kept at %s", job.ref, store.quarantine(*job.ref))


class Progress:
    """A stage's progress: to its lease, where there is one (a worker of a wide stage has none), and now and then to the log."""

    def __init__(self, lease: Lease | None, log: logging.Logger) -> None:
        self.lease, self.log = lease, log
        self.began = self.told = time.monotonic()
        self.first: tuple[float, float] | None = None
        self.last = (0.0, 0.0)
        """(seconds since the start, units done) at the first and the last sign of progress."""

    def __call__(self, done: float, total: float, unit: str) -> None:
        if self.lease is not None:
            self.lease.progress(done, total, unit)
        now = time.monotonic()
        self.last = (now - self.began, done)
        self.first = self.first or self.last
        if now - self.told >= TELL_S:
            self.told = now
            self.log.info("%s of %s %s", f"{done:,.0f}", f"{total:,.0f}", unit)

    @property
    def startup_s(self) -> float | None:
        """Seconds before the first unit, if all units took as long as those between the first sign of progress and the last.

        None where there was one sign or none.
        """
        if self.first is None or self.last[1] <= self.first[1]:
            return None
        pace = (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])
        return max(0.0, self.first[0] - pace * self.first[1])


def _context(store: Store, job: Job, out: Path, lease: Lease | None, stopping: Callable[[], bool], log: logging.Logger) -> Context:
    def stop() -> bool:
        return stopping() or (lease is not None and lease.lost.is_set())

    work = _work(store, job, log)
    store.shared.mkdir(parents=True, exist_ok=True)
    return Context(
        out=out,
        work=work,
        shared=store.shared,
        resources=job.resources,
        key=job.ref.key,
        study=job.study,
        progress=Progress(lease, log),
        stopping=stop,
        log=log,
    )


def _work(store: Store, job: Job, log: logging.Logger) -> Path:
    """Where a stage's unfinished work lies: that of other code is gone on from only where other code is accepted."""
    work, code = store.work(*job.ref), stage_code(job.ref.kind, job.store)
    work.mkdir(parents=True, exist_ok=True)
    mark = work / "code"
    if not mark.exists():
        beside = work / f".code.{os.getpid()}.{secrets.token_hex(4)}"
        beside.write_text(code, encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            os.link(beside, mark)
        beside.unlink()
    if mark.read_text(encoding="utf-8") == code:
        return work
    if not job.own_code:
        log.warning("%s was begun by other code of the same version, and goes on from there (study.other_code=warn)", job.ref)
        return work
    own = work / f"code-{code}"
    own.mkdir(exist_ok=True)
    return own


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
    if any(artifact.pruned for artifact in inputs.values()):
        raise StoreError(
            f"{job.ref}: the weights to evaluate were taken away (store.keep_weights); launch again, and they are trained anew"
        )
    began, cpu_began = time.time(), _cpu_seconds()
    module = _load_stage(job)
    out = store.draft(*job.ref)
    ctx = _context(store, job, out, lease, stopping, log)
    loaded = time.time()
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
        "startup_s": _startup(ctx, loaded - began),
        "cpu_seconds": _cpu_seconds() - cpu_began,
        "finished": time.time(),
        "gpus": job.resources.gpus,
        "max_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    log.info("%s", ", ".join(f"{name} {_short(value)}" for name, value in metrics.items() if isinstance(value, int | float | str)))
    store.publish(out, record, metrics, lease, facts)


def _startup(ctx: Context, loading_s: float) -> float | None:
    """Seconds before a stage's first unit, None where it did not tell."""
    told = ctx.progress.startup_s if isinstance(ctx.progress, Progress) else None
    return None if told is None else loading_s + told


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
        raise Interrupted("asked to stop while another process held this worker's lease")
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


def execute_follower(job: Job, stopping: Callable[[], bool], log: logging.Logger) -> None:
    """Works along with rank 0 of a training that SLURM started on several tasks.

    It waits until rank 0 holds the stage's lease and says that there is something to compute.
    """
    store = Store(job.store, job.lease_s)
    while not _announcement(store, job).exists():
        if store.exists(*job.ref):
            return
        if stopping():
            raise Interrupted("asked to stop before rank 0 had anything to compute")
        if job.failure.exists():
            raise QupError(f"{job.ref}: rank 0 failed before there was anything to compute; its log and `qup status` say why")
        time.sleep(0.2)
    inputs = load_inputs(store, job)
    module = _load_stage(job)
    out = store.work(*job.ref) / f"rank-{os.environ['RANK']}"
    out.mkdir(parents=True, exist_ok=True)
    module.run(job.view, inputs, _context(store, job, out, None, stopping, log))
    # SLURM ends the others soon after the first rank has ended, so none may end before rank 0 has published.
    while not store.exists(*job.ref):
        if stopping():
            raise Interrupted("asked to stop before rank 0 had published")
        if job.failure.exists():
            raise QupError(f"{job.ref}: rank 0 failed after the training; its log and `qup status` say why")
        time.sleep(0.5)


def _announcement(store: Store, job: Job) -> Path:
    mark = f"{os.environ.get('SLURM_JOB_ID', 'local')}.{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    return store.work(*job.ref) / f"rank-0-works-{mark}"


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
