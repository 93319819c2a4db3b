"""What a study has put into SLURM's queue: an append-only log, and one lease a stage shared by all studies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qup.files import read_json, write_json
from qup.launch.slurm.arrays import Unit
from qup.pipeline.graph import Ref
from qup.store import Store


@dataclass
class Submission:
    """One launch's or retry's jobs."""

    id: str
    jobs: dict[str, list[Unit]] = field(default_factory=dict)
    """Job id of an sbatch call → its units, in array order; none for a report or a driver."""
    released: bool = False
    cancelled: bool = False
    calls: int = 0
    """sbatch calls so far."""
    stopped: set[str] = field(default_factory=set)
    """Tasks that `qup cancel` ended; SLURM itself forgets those of an array that never ran."""

    def job_ids(self) -> Iterator[tuple[str, Unit]]:
        """Every task's id, `123` or `123_4`, with what it does."""
        for job, units in self.jobs.items():
            for index, unit in enumerate(units):
                yield (job if len(units) == 1 else f"{job}_{index}"), unit


class Ledger:
    """The log of one study."""

    def __init__(self, study_dir: Path) -> None:
        self.path = study_dir / "slurm" / "ledger.jsonl"

    def write(self, event: str, submission: str, **facts: Any) -> None:
        """Appends an event; the last ones of a submission are synced to disk, and those before them with it.

        What a crash of the machine takes before that, the jobs' comments still tell.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"event": event, "submission": submission, **facts}) + "\n"
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            if event != "submitted":
                os.fsync(stream.fileno())

    def read(self) -> list[Submission]:
        """All submissions, oldest first; a line torn by a crash is passed over."""
        found: dict[str, Submission] = {}
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            submission = found.setdefault(entry["submission"], Submission(entry["submission"]))
            match entry["event"]:
                case "submitted":
                    submission.jobs[entry["job"]] = [Unit(Ref(kind, key), worker, workers) for kind, key, worker, workers in entry["units"]]
                case "withdrawn":
                    for job in entry["jobs"]:
                        submission.jobs.pop(job, None)
                case "released":
                    submission.released = True
                case "stopped":
                    submission.stopped.update(entry["jobs"])
                case "cancelled":
                    submission.cancelled = True
        return list(found.values())

    def latest(self) -> dict[Ref, list[tuple[str, Unit, Submission]]]:
        """For each stage the tasks of its newest submission: the workers of a wide stage and its merge."""
        found: dict[Ref, list[tuple[str, Unit, Submission]]] = {}
        for submission in self.read():
            mine: dict[Ref, list[tuple[str, Unit, Submission]]] = {}
            for job, unit in submission.job_ids():
                mine.setdefault(unit.ref, []).append((job, unit, submission))
            found.update(mine)
        return found


class Queue:
    """Which job computes which stage, over all studies of a store."""

    def __init__(self, store: Store) -> None:
        self.root = store.root / "queue"

    def path(self, ref: Ref) -> Path:
        return self.root / f"{ref.kind}-{ref.key}.json"

    def put(self, ref: Ref, job: str, submission: str, study: str) -> None:
        """Notes that `job` ends with this stage published."""
        write_json(self.path(ref), {"ref": list(ref), "job": job, "submission": submission, "study": study}, sync=False)

    def all(self) -> dict[Ref, dict[str, Any]]:
        """Every note, those of jobs long gone included."""
        found = {}
        for path in self.root.glob("*.json") if self.root.is_dir() else []:
            if (entry := read_json(path)) is not None:
                found[Ref(*entry["ref"])] = entry
        return found

    def remove(self, ref: Ref) -> None:
        self.path(ref).unlink(missing_ok=True)
