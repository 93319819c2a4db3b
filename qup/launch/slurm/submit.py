"""Submission: jobs go in held, are written down, and are released together."""

from __future__ import annotations

import secrets
import shlex
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit.core import utils as submitit_utils
from submitit.slurm.slurm import SlurmExecutor

from qup.config.schema import Resources
from qup.launch.costs import gpu_count
from qup.launch.job import job_of
from qup.launch.plan import Plan, Planned
from qup.launch.slurm.arrays import Batch, Unit, make_batches
from qup.launch.slurm.commands import Slurm, SubmitLimit
from qup.launch.slurm.entry import StageTask
from qup.launch.slurm.ledger import Ledger, Queue, Submission
from qup.launch.slurm.site import Site, queue_lock, setup_lines
from qup.launch.units import parse_memory, parse_minutes
from qup.pipeline.graph import Ref
from qup.pipeline.kinds import KINDS
from qup.store.store import package_versions

LAST_S = 40
"""Seconds that the other ranks of a training live on once one has ended."""


def _ranks(kind: str, resources: Resources) -> int:
    return resources.nodes * resources.tasks if kind in KINDS and KINDS[kind].ranks else 1


def parameters(site: Site, resources: Resources, call: str, kind: str, what: str, dependency: str) -> dict[str, Any]:
    """submitit's parameters for one sbatch call.

    The comment, `qup <study's identity> <call> <what>` and then the user's own, is how a job is recognised in the queue; a call is named
    `<submission>.<number>`.
    """
    seconds = int(parse_minutes(resources.time) * 60)
    exits = shlex.quote(str(site.study_dir / "slurm" / "exits"))
    asked = {name.replace("_", "-"): value for name, value in resources.extra.items() if value is not None and value is not False}
    mark = " ".join(filter(None, (f"qup {site.identity} {call} {what}", str(asked.pop("comment", "")))))
    dependency = ",".join(filter(None, (dependency, str(asked.pop("dependency", "")))))
    gres = ",".join(filter(None, (f"gpu:{resources.gpus}" if gpu_count(resources) else "", str(asked.pop("gres", "")))))
    extra: dict[str, Any] = {**asked, "comment": mark, "requeue": True, "hold": True}
    if dependency:
        extra["kill-on-invalid-dep"] = "yes"
    if gres:
        extra["gres"] = gres
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
        "array_parallelism": resources.at_once or 10_000,
        "srun_args": [*([f"--wait={LAST_S}"] if _ranks(kind, resources) > 1 else []), *resources.srun],
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
    """submitit's files and script, with memory given as SLURM writes it and sbatch called with our patience."""

    def __init__(self, folder: Path, slurm: Slurm, mark: str) -> None:
        super().__init__(folder=folder)
        self.slurm, self.mark = slurm, mark

    def submit_all(self, tasks: Sequence[Any]) -> str:
        """One sbatch call for all tasks, an array where they are several; returns the job's id."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pickled = []
        for task in tasks:
            pickled.append(self.folder / f"{secrets.token_hex(16)}.pkl")
            delayed = submitit_utils.DelayedSubmission(task)
            delayed.set_timeout(self.parameters.get("time", 5), self.max_num_timeout)
            delayed.dump(pickled[-1])
        if len(tasks) > 1:
            self.parameters["map_count"] = len(tasks)
        script = self.folder / f".submission_file_{secrets.token_hex(16)}.sh"
        script.write_text(self._make_submission_file_text(self._submitit_command_str, ""), encoding="utf-8")
        job = self.slurm.submit(script, self.mark)
        for index, path in enumerate(pickled):
            paths = submitit_utils.JobPaths(self.folder, job if len(tasks) == 1 else f"{job}_{index}")
            paths.move_temporary_file(path, "submitted_pickle")
        submitit_utils.JobPaths(self.folder, job).move_temporary_file(script, "submission_file", keep_as_symlink=True)
        return job

    def _convert_parameters(self, params: dict[str, Any]) -> dict[str, Any]:
        mem = params.pop("mem", None)
        converted: dict[str, Any] = super()._convert_parameters(params)
        return converted | ({"mem": mem} if mem else {})


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
    """Submits waves of one study's stages. `jobs` is the queue as it was when the store's queue was locked for this wave."""

    def __init__(self, site: Site, slurm: Slurm) -> None:
        self.site, self.slurm = site, slurm
        self.ledger, self.queue = Ledger(site.study_dir), Queue(site.store)
        self.max_array = slurm.max_array_size()
        self.jobs = slurm.jobs()

    def alive(self) -> dict[Ref, str]:
        """Stages that some study's live job will publish, with the job's id. Notes of dead jobs are cleared."""
        found = {}
        for ref, entry in self.queue.all().items():
            job = self.jobs.get(entry["job"])
            if job is not None and job.alive and entry["submission"] == job.submission:
                found[ref] = entry["job"]
            elif not self.site.store.exists(*ref):
                self.queue.remove(ref)
        return found

    def clear_leftovers(self) -> list[str]:
        """Cancels this study's held jobs that never were released: their client died in the middle of submission."""
        submissions = self.ledger.read()
        released = {submission.id for submission in submissions if submission.released}
        left = [job.id for job in self.jobs.values() if job.held and job.of(self.site.identity) and job.submission not in released]
        self.slurm.cancel(_whole(left))
        for submission in submissions:
            if not submission.released and not submission.cancelled:
                self.ledger.write("cancelled", submission.id)
        return left

    def room(self) -> int:
        """Tasks that may be submitted below cluster.max_jobs, beside those in the queue."""
        return max(0, self.site.cluster.max_jobs - sum(job.alive for job in self.jobs.values()))

    def submit_wave(self, plan: Plan, *, skip: frozenset[Ref] = frozenset()) -> tuple[Submission, list[Ref]]:
        """Submits what there is room for, in order; returns the submission and the stages left over.

        If one sbatch call fails, those before it are cancelled and the error is raised; at SLURM's own limit the rest is
        left over.
        """
        queued = {ref: job for ref, job in self.alive().items() if ref in plan.to_run}
        chosen: dict[Ref, Planned] = {}
        left: list[Ref] = []
        room = self.room()
        unavailable = set(skip)
        for ref, planned in plan.to_run.items():
            if ref in queued:
                continue
            tasks = tasks_of(planned)
            if ref in unavailable or tasks > room or any(parent in unavailable for parent in planned.node.inputs.values()):
                unavailable.add(ref)
                left.append(ref)
                continue
            room -= tasks
            chosen[ref] = planned
        submission = Submission(secrets.token_hex(5))
        if chosen:
            left += self._submit(make_batches(chosen, queued, self.max_array), chosen, submission)
        return submission, left

    def _submit(self, batches: Sequence[Batch], chosen: Mapping[Ref, Planned], submission: Submission) -> list[Ref]:
        """Returns the stages that SLURM's limit left no room for."""
        ids: dict[int, str] = {}
        packages = package_versions() if self.site.code is not None else {}
        left: list[Ref] = []
        try:
            for place, batch in enumerate(batches):
                planned = batch.planned
                assert planned is not None
                tasks = [self._task(unit, chosen[unit.ref], packages) for unit in batch.units]
                what = str(batch.units[0].ref) if len(batch.units) == 1 else f"{batch.kind}[{len(batch.units)}]"
                try:
                    ids[id(batch)] = self._call(
                        submission, batch.units, tasks, planned.resources, batch.kind, what, dependency_string(batch, ids)
                    )
                except SubmitLimit:
                    if not submission.jobs and not any(job.alive for job in self.jobs.values()):
                        raise
                    left = self._give_way(batches[place:], submission)
                    break
        except BaseException:
            self._withdraw(submission)
            raise
        for job, unit in submission.job_ids():
            if unit.worker is None:
                self.queue.put(unit.ref, job, submission.id, self.site.study)
        self._release(submission)
        return left

    def _give_way(self, refused: Sequence[Batch], submission: Submission) -> list[Ref]:
        """Stages that do not fit; the last call before them is taken back, so that whoever submits the rest finds room."""
        left = {unit.ref for batch in refused for unit in batch.units}
        if submission.jobs:
            left |= {unit.ref for unit in submission.jobs[list(submission.jobs)[-1]]}
        back = [job for job, units in submission.jobs.items() if any(unit.ref in left for unit in units)]
        self.slurm.cancel(back)
        for job in back:
            left |= {unit.ref for unit in submission.jobs.pop(job)}
        self.ledger.write("withdrawn", submission.id, jobs=back)
        return list(left)

    def _withdraw(self, submission: Submission) -> None:
        """Takes everything of a submission back, also what sbatch did and did not tell."""
        there = list(submission.jobs)
        if self.slurm.doubted:
            there += self._twice(submission)
        self.slurm.cancel(there)
        self.ledger.write("cancelled", submission.id)

    def _twice(self, submission: Submission) -> list[str]:
        """Jobs of a submission that nobody was told the ids of."""
        return _whole([job.id for job in self.slurm.jobs().values() if job.alive and job.submission == submission.id], submission.jobs)

    def _call(
        self, submission: Submission, units: list[Unit], tasks: Sequence[Any], resources: Resources, kind: str, what: str, dependency: str
    ) -> str:
        """One sbatch call, written down; returns the held job's id."""
        call = f"{submission.id}.{submission.calls}"
        submission.calls += 1
        made = parameters(self.site, resources, call, kind, what, dependency)
        if not units:
            made["additional_parameters"].pop("kill-on-invalid-dep", None)
        executor = Executor(self.site.study_dir / "slurm" / submission.id, self.slurm, call)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            executor._internal_update_parameters(**made)
            job = executor.submit_all(tasks)
        submission.jobs[job] = units
        listed = [[unit.ref.kind, unit.ref.key, unit.worker, unit.workers] for unit in units]
        self.ledger.write("submitted", submission.id, job=job, units=listed)
        return job

    def _release(self, submission: Submission) -> None:
        if self.slurm.doubted:
            self.slurm.cancel(self._twice(submission))
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
        with queue_lock(self.site.store):
            try:
                job = self._call(submission, [], [task], resources, what, what, dependency)
            except BaseException:
                self._withdraw(submission)
                raise
            self._release(submission)
        return job


def tasks_of(planned: Planned) -> int:
    """SLURM tasks that a stage takes: one, and its workers where it has some."""
    return 1 + (planned.resources.workers if KINDS[planned.node.kind].sharded and planned.resources.workers > 1 else 0)


def _whole(ids: Collection[str], without: Collection[str] = ()) -> list[str]:
    """Jobs of array tasks, each once."""
    return sorted({job.partition("_")[0] for job in ids}.difference(without))
