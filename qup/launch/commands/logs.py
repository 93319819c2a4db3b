"""`qup logs`: what one stage of one cell wrote, and what its job said where it ended before the stage began."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from qup.errors import InputError
from qup.launch.slurm.commands import Slurm
from qup.launch.slurm.ended import exit_status, last_words, outputs, status_in_words
from qup.launch.slurm.ledger import Ledger
from qup.launch.slurm.site import on_slurm
from qup.launch.status import study_status
from qup.pipeline.graph import Ref
from qup.pipeline.kinds import KINDS
from qup.study import Study, find_cell

SHOWN_LINES = 40
"""Lines shown of what a job said beside its stage's log."""


def show_log(study: str | None, shown: Path, cell: str, stage: str, *, follow: bool) -> int:
    """Prints the stage's log and those of its workers and ranks; with `follow` goes on with the newest as it grows, until interrupted."""
    found, entry = find_cell(cell, study, shown, ran=True)
    if stage not in KINDS:
        raise InputError(f"stage {stage!r}: there are {', '.join(KINDS)}")
    refs = [one.ref for one in entry.refs(stage)]
    if not refs:
        raise InputError(f"stage {stage}: cell {entry.label} has none; it has {', '.join(entry.stages)}")
    paths = [path for ref in refs for path in _logs(found, ref)]
    told = [told for ref in refs for told in _job_said(found, ref, bool(_logs(found, ref)))]
    if not paths and not told:
        raise InputError(f"{stage} of {entry.label}: {_why_none(found, refs[0])}")
    for path in paths:
        if len(paths) + len(told) > 1:
            print(f"==> {path}")
        sys.stdout.write(path.read_text(encoding="utf-8", errors="replace"))
    for line in told:
        print(line)
    if follow and paths:
        _follow(max(paths, key=lambda path: path.stat().st_mtime))
    return 0


def _logs(study: Study, ref: Ref) -> list[Path]:
    return sorted((study.folder / "logs").glob(f"{ref.kind}-{ref.key}*.log"), key=lambda path: (len(path.name), path.name))


def _job_said(study: Study, ref: Ref, has_log: bool) -> list[str]:
    """The end of what the jobs of its newest submission wrote, where they failed or the stage has no log."""
    lines = []
    for job, _, submission in Ledger(study.folder).latest().get(ref, []):
        status = exit_status(study.folder, job)
        said = last_words(outputs(study.folder, submission.id, job)) if status or not has_log else []
        if status or said:
            ended = f", which ended with status {status}: {status_in_words(status)}" if status else ""
            lines += [f"==> job {job}{ended}", *said[-SHOWN_LINES:]]
    return lines


def _why_none(study: Study, ref: Ref) -> str:
    found = study_status(study, Slurm(patience_s=5.0) if on_slurm(study.folder) else None).stages.get(ref)
    if found is None:
        return "no log: nothing that is missing needs it"
    if found.state == "stored":
        return "no log: it was stored before this study, or another study computed it"
    if found.state in ("waiting", "queued", "held"):
        return f"no log: it has not started ({study.folder / 'logs' / f'{ref.kind}-{ref.key}.log'})"
    return f"no log; {found.state}: {found.detail}"


def _follow(path: Path) -> None:
    with path.open(encoding="utf-8", errors="replace") as stream:
        stream.seek(0, 2)
        while True:
            sys.stdout.write(stream.read())
            sys.stdout.flush()
            time.sleep(0.5)
