"""Submission: jobs go in held, are written down, and are released together."""

from __future__ import annotations

import secrets
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit.core import utils as submitit_utils
from submitit.slurm.slurm import SlurmExecutor

from qup.config.schema import Resources
from qup.errors import QupError
from qup.launch.costs import gpu_count
from qup.launch.job import job_of
from qup.launch.plan import Plan, Planned
from qup.launch.slurm.arrays import Batch, Unit, make_batches
from qup.launch.slurm.commands import Slurm
from qup.launch.slurm.entry import StageTask
from qup.launch.slurm.ledger import Ledger, Queue, Submission
from qup.launch.slurm.site import Site, queue_lock, setup_lines
from qup.launch.units import parse_memory, parse_minutes
from qup.pipeline.graph import Ref
from qup.pipeline.kinds import KINDS
from qup.store.store import package_versions


def parameters(site: Site, resources: Resources, submission: str, kind: str, what: str, dependency: str) -> dict[str, Any]:
    """submitit's parameters for one sbatch call.

    The comment, `qup <study> <submission> <what>`, is how a job is recognised in the queue.
    """
    seconds = int(parse_minutes(resources.time) * 60)
    exits = shlex.quote(str(site.study_dir / "slurm" / "exits"))
    extra: dict[str, Any] = {"comment": f"qup {site.study} {submission} {what}", "requeue": True, "hold": True, **resources.extra}
    if dependency:
        extra["kill-on-invalid-dep"] = "yes"
    if gpu_count(resources):
        extra["gres"] = f"gpu:{resources.gpus}"
    if resources.reservation:
        extra["reservation"] = resources.reservation
    made: dict[str, Any] = {
        "job_name": f"{site.study}.{kind}"[:60],
        "time": resources.time,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks,
        "cpus_per_task": resources.cpus,
        "mem": f"{max(1, parse_memory(resources.mem) >> 20)}M",
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "exclude": resources.exclude,
        "dependency": dependency or None,
        "signal_delay_s": min(site.cluster.warn_s, max(1, seconds // 2)),
        "stderr_to_stdout": True,
        "array_parallelism": 10_000,
        "setup": setup_lines(site, resources),
        "teardown": [
            "status=$?",
            f"mkdir -p {exits}",
            'echo "$status" > ' + exits + '/"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"',
            "exit $status",
        ],
        "additional_parameters": extra,
    }
    return {name: value for name, value in made.items() if value is not None}


class Executor(SlurmExecutor):
    """submitit's executor with memory given as SLURM writes it."""

    def _convert_parameters(self, params: dict[str, Any]) -> dict[str, Any]:
        mem = params.pop("mem", None)
        converted: dict[str, Any] = super()._convert_parameters(params)
        return converted | ({"mem": mem} if mem else {})


def call_sbatch(folder: Path, tasks: Sequence[Any], made: dict[str, Any]) -> str:
    """One sbatch call through submitit; returns the job's id. QupError says what SLURM objected to."""
    executor = Executor(folder=folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        executor._internal_update_parameters(**made)
        delayed = [submitit_utils.DelayedSubmission(task) for task in tasks]
        try:
            jobs = executor._internal_process_submissions(delayed)
        except submitit_utils.FailedJobError as error:
            said = " ".join(str(error).split())
            raise QupError(f"sbatch refused the job: {said[-400:]}") from None
    return str(jobs[0].job_id).partition("_")[0]


def dependency_string(batch: Batch, ids: Mapping[int, str]) -> str:
    """sbatch's --dependency of a batch; `ids` maps id(batch) to its job."""
    parts = []
    singles = list(batch.after_jobs)
    singles += [ids[id(other)] if index is None else f"{ids[id(other)]}_{index}" for other, index in batch.after]
    if singles:
        parts.append("afterok:" + ":".join(dict.fromkeys(singles)))
    if batch.each_after is not None:
        parts.append(f"aftercorr:{ids[id(batch.each_after)]}")
    return ",".join(parts)


class Submitter:
    """Submits waves of one study's stages."""

    def __init__(self, site: Site, slurm: Slurm) -> None:
        self.site, self.slurm = site, slurm
        self.ledger, self.queue = Ledger(site.study_dir), Queue(site.store)
        self.max_array = slurm.max_array_size()

    def alive(self) -> dict[Ref, str]:
        """Stages that some study's live job will publish, with the job's id. Notes of dead jobs are cleared."""
        jobs = self.slurm.jobs()
        found = {}
        for ref, entry in self.queue.all().items():
            job = jobs.get(entry["job"])
            if job is not None and job.alive and entry["submission"] in job.comment:
                found[ref] = entry["job"]
            elif not self.site.store.exists(*ref):
                self.queue.remove(ref)
        return found

    def clear_leftovers(self) -> list[str]:
        """Cancels held jobs of submissions that never were released: their client died in the middle."""
        submissions = self.ledger.read()
        released = {submission.id for submission in submissions if submission.released}
        mark = f"qup {self.site.study} "
        left = [
            job.id
            for job in self.slurm.jobs().values()
            if job.alive and job.comment.startswith(mark) and job.comment.split()[2] not in released
        ]
        if left:
            self.slurm.cancel(sorted({job.partition("_")[0] for job in left}))
        for submission in submissions:
            if not submission.released and not submission.cancelled:
                self.ledger.write("cancelled", submission.id)
        return left

    def submit_wave(self, plan: Plan, limit: int, *, skip: frozenset[Ref] = frozenset()) -> tuple[Submission, list[Ref]]:
        """Submits what fits below `limit` tasks, in order; returns the submission and the stages left over.

        If one sbatch call fails, those before it are cancelled and the error is raised.
        """
        queued = {ref: job for ref, job in self.alive().items() if ref in plan.to_run}
        chosen: dict[Ref, Planned] = {}
        left: list[Ref] = []
        room = limit
        unavailable = set(skip)
        for ref, planned in plan.to_run.items():
            if ref in queued:
                continue
            if ref in unavailable or any(parent in unavailable for parent in planned.node.inputs.values()):
                unavailable.add(ref)
                left.append(ref)
                continue
            tasks = 1 + (planned.resources.workers if KINDS[ref.kind].sharded and planned.resources.workers > 1 else 0)
            if tasks > room:
                unavailable.add(ref)
                left.append(ref)
                continue
            room -= tasks
            chosen[ref] = planned
        submission = Submission(secrets.token_hex(5))
        if chosen:
            self._submit(make_batches(chosen, queued, self.max_array), chosen, submission)
        return submission, left

    def _submit(self, batches: Sequence[Batch], chosen: Mapping[Ref, Planned], submission: Submission) -> None:
        ids: dict[int, str] = {}
        packages = package_versions() if self.site.code is not None else {}
        try:
            for batch in batches:
                planned = batch.planned
                assert planned is not None
                tasks = [self._task(unit, chosen[unit.ref], packages) for unit in batch.units]
                what = str(batch.units[0].ref) if len(batch.units) == 1 else f"{batch.kind}[{len(batch.units)}]"
                made = parameters(self.site, planned.resources, submission.id, batch.kind, what, dependency_string(batch, ids))
                ids[id(batch)] = self._sbatch(submission, batch.units, tasks, made)
        except BaseException:
            self.slurm.cancel(list(submission.jobs))
            self.ledger.write("cancelled", submission.id)
            raise
        for job, unit in submission.job_ids():
            if unit.worker is None:
                self.queue.put(unit.ref, job, submission.id, self.site.study)
        self._release(submission)

    def _sbatch(self, submission: Submission, units: list[Unit], tasks: Sequence[Any], made: dict[str, Any]) -> str:
        """One sbatch call, written down; returns the held job's id."""
        job = call_sbatch(self.site.study_dir / "slurm" / submission.id, tasks, made)
        submission.jobs[job] = units
        listed = [[unit.ref.kind, unit.ref.key, unit.worker, unit.workers] for unit in units]
        self.ledger.write("submitted", submission.id, job=job, units=listed)
        return job

    def _release(self, submission: Submission) -> None:
        self.slurm.release(list(submission.jobs))
        self.ledger.write("released", submission.id)
        submission.released = True

    def _task(self, unit: Unit, planned: Planned, packages: dict[str, str]) -> StageTask:
        job = job_of(planned, self.site.study, self.site.study_dir, self.site.store, packages)
        job.failure.unlink(missing_ok=True)
        worker = None if unit.worker is None else (unit.worker, unit.workers)
        return StageTask(str(job.save()), worker, self.site.cluster.max_requeues)

    def submit_plain(self, task: Any, what: str, resources: Resources, dependency: str) -> str:
        """A job that is no stage: the report, or the driver. Returns its id."""
        submission = Submission(secrets.token_hex(5))
        made = parameters(self.site, resources, submission.id, what, what, dependency)
        made["additional_parameters"].pop("kill-on-invalid-dep", None)
        with queue_lock(self.site.store):
            job = self._sbatch(submission, [], [task], made)
            self._release(submission)
        return job
