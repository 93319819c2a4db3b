"""`qup sync STUDY`: every run of a study into W&B from what the store holds, as often as one likes."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qup.config.fingerprint import build
from qup.config.schema import Tracking
from qup.errors import InputError
from qup.files import file_sha256, read_json, write_text
from qup.pipeline import KINDS
from qup.pipeline.graph import Ref
from qup.store import Artifact, Store
from qup.study import Cell, Study
from qup.tracking.spec import HISTORY, Spec, flat, lines_of, mode_of, read_history, run_id, spec_of
from qup.tracking.tracker import PATIENCE_S, end, follower_environment

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

SYNCED = "synced.json"


@dataclass(frozen=True)
class _Run:
    spec: Spec
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    report: Path | None = None

    @property
    def digest(self) -> str:
        """Of everything that is shown."""
        content: list[Any] = [asdict(self.spec), self.history, self.summary]
        if self.report is not None:
            content.append({path.name: file_sha256(path) for path in _media(self.report)})
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def sync_study(folder: Path, console: Console) -> int:
    """Replays a study's runs; what is there already is left alone. Returns 1 where some could not be sent.

    Raises InputError where the study was not launched with tracking.
    """
    study = Study.load(folder)
    tracking = _tracking(study)
    if tracking.name == "none":
        raise InputError(
            f"{study.name}: launched with tracking=none, so there is no project to sync to; launch it again with tracking=wandb"
        )
    counts = {"sent": 0, "there already": 0, "failed": 0}
    for run in _runs(study, tracking):
        outcome = _sync(run, folder / "wandb" / run.spec.id)
        counts[outcome] += 1
        if outcome == "failed":
            console.print(f"not sent: {run.spec.name} (see {folder / 'wandb' / run.spec.id / 'follower.log'})", markup=False)
    where = "offline files under" if any(True for _ in (folder / "wandb").glob("*/wandb/offline-run-*")) else "online, local logs under"
    console.print(
        f"{', '.join(f'{count} {name}' for name, count in counts.items() if count or name == 'sent')}; {where} {folder / 'wandb'}"
    )
    return 1 if counts["failed"] else 0


def _runs(study: Study, tracking: Tracking) -> list[_Run]:
    made: dict[str, _Run] = {}
    store = study.open_store()
    for cell in study.cells:
        labels = {"study": study.name, "cell": cell.label, "model": cell.get("model.name"), "stream": cell.get("stream.name")}
        for kind in (kind.name for kind in KINDS.values() if kind.tracked):
            ref = cell.key(kind)
            run = _run(store, tracking, ref, labels, cell) if ref else None
            if run is not None:
                made.setdefault(run.spec.id, run)
    report = _report_run(study, tracking)
    return [*made.values(), *([report] if report is not None else [])]


def _report_run(study: Study, tracking: Tracking) -> _Run | None:
    """The study's table and figures; None where no report was built."""
    report = study.folder / "report"
    if not (report / "cells.csv").exists():
        return None
    from qup.tracking.replay import report_summary

    config = {"cells": [cell.label for cell in study.cells]}
    labels = {"study": study.name, "cell": study.name}
    spec = spec_of(tracking, identity=study.name, kind="report", labels=labels, config=config)
    return _Run(spec, [], report_summary(report), report)


def track_report(folder: Path) -> None:
    """At a study's end, its table and figures as one run; waits PATIENCE_S at most and never raises.

    What was not sent by then is sent by `qup sync`.
    """
    try:
        study = Study.load(folder)
        tracking = _tracking(study)
        run = _report_run(study, tracking) if tracking.name != "none" else None
        if run is not None and _sync(run, folder / "wandb" / run.spec.id, PATIENCE_S) == "failed":
            log.warning("W&B run %s was not sent; `qup sync` sends it", run.spec.id)
    except Exception as error:
        log.warning("the report of %s is not tracked: %s", folder.name, error)


def where_tracked(folder: Path) -> str:
    """Where a study's runs are to be seen, and what sends them that are not there yet; '' where nothing is tracked."""
    study = Study.load(folder)
    tracking = _tracking(study)
    if tracking.name == "none":
        return ""
    project = f"{tracking.entity}/{tracking.project}" if tracking.entity else tracking.project
    if mode_of(tracking) == "online":
        return f"project {project}, group {study.name}; qup sync {study.name} sends what did not get there"
    return f"offline in {folder / 'wandb'}; once there is a key, qup sync {study.name} sends it to project {project}"


def _tracking(study: Study) -> Tracking:
    return build(Tracking, study.setting("tracking", {}))


def _run(store: Store, tracking: Tracking, ref: Ref, labels: Mapping[str, str], cell: Cell) -> _Run | None:
    """One stage's run: from its artifact, or from what it has written so far."""
    kind, key = ref
    artifact = store.get_sound(kind, key)
    identity = str(artifact.manifest.get("adopted_from") or key) if artifact is not None else key
    spec = spec_of(tracking, identity=identity, kind=kind, labels=labels, config=cell.config)
    if artifact is None:
        history = read_history(store.work(kind, key) / "steps.jsonl")
        return _Run(spec, history, {}) if history else None
    history = read_history(artifact.file("steps.jsonl")) if artifact.has("steps.jsonl") else []
    if tracking.artifacts:
        spec = replace(spec, references=_references(store, artifact, kind, cell))
    return _Run(spec, history, flat(artifact.metrics))


def _references(store: Store, artifact: Artifact, kind: str, cell: Cell) -> dict[str, str]:
    if kind != "train":
        return {}
    found = {f"model-{artifact.key}": str(artifact.path / "model")} if artifact.has("model") else {}
    stream = cell.key("stream")
    if stream and store.exists(*stream):
        found[f"dataset-{stream.key}"] = str(store.path(*stream))
    return found


def _sync(run: _Run, folder: Path, patience_s: float | None = None) -> str:
    """Sends one run in a process of its own, unless exactly this was sent before; `failed` where it takes too long."""
    digest = run.digest
    there = run.spec.mode == "online" or any((folder / "wandb").glob("offline-run-*/*.wandb"))
    if there and (read_json(folder / SYNCED) or {}).get("digest") == digest:
        return "there already"
    run.spec.save(folder)
    write_text(folder / HISTORY, lines_of(run.history))
    write_text(folder / "summary.json", json.dumps(run.summary, default=str))
    arguments = [sys.executable, "-m", "qup.tracking.sync", str(folder), *([str(run.report)] if run.report is not None else [])]
    with (folder / "follower.log").open("ab") as out:
        child = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=follower_environment(), start_new_session=True
        )
    try:
        status = child.wait(patience_s)
    except subprocess.TimeoutExpired:
        end(child)
        return "failed"
    except BaseException:
        end(child)
        raise
    if status:
        return "failed"
    write_text(folder / SYNCED, json.dumps({"digest": digest, "mode": run.spec.mode}))
    return "sent"


def _media(report: Path) -> list[Path]:
    return [report / "cells.csv", *sorted((report / "figures").glob("*.png"))]


def _replay_folder(folder: Path, report: Path | None) -> None:
    from qup.tracking.replay import replay

    spec = replace(Spec.load(folder), steps=None)
    replay(spec, folder, spec.history(folder), json.loads((folder / "summary.json").read_text(encoding="utf-8")), report)


__all__ = ["run_id", "sync_study"]

if __name__ == "__main__":
    _replay_folder(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
