"""Writing a run into W&B from its local log. Imported only by processes that talk to W&B."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qup.files import read_json
from qup.tracking.spec import Spec

INIT_S = 60.0


def start(spec: Spec, folder: Path) -> Any:
    """A W&B run; online it goes on where the run of that id ended, offline it is a new file."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        mode="online" if spec.mode == "online" else "offline",
        init_timeout=INIT_S,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
        silent=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        host="",
        program="qup",
    )
    return wandb.init(
        id=spec.id,
        project=spec.project,
        entity=spec.entity,
        group=spec.group or None,
        job_type=spec.kind,
        name=spec.name,
        tags=list(spec.tags) or None,
        config=dict(spec.config),
        dir=str(folder),
        resume="allow" if spec.mode == "online" else None,
        settings=settings,
    )


def send(run: Any, history: Sequence[Mapping[str, Any]], sent: int) -> int:
    """Logs the steps after `sent`; returns the last step that is there now."""
    for entry in history:
        step = int(entry["step"])
        if step > sent:
            run.log({name: value for name, value in entry.items() if name != "step"}, step=step)
            sent = step
    return sent


def already(run: Any) -> int:
    """The last step that a resumed run has; −1 for a new one."""
    return int(run.step) - 1 if getattr(run, "resumed", False) else -1


def replay(spec: Spec, folder: Path, history: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], media: Path | None = None) -> None:
    """The whole run at once. Offline, its one file takes the place of earlier ones; online, only what is new is sent."""
    earlier = _set_aside(folder / "wandb") if spec.mode == "offline" else []
    run = start(spec, folder)
    send(run, history, already(run))
    if media is not None:
        _log_report(run, media)
    for name, place in spec.references.items():
        _reference(run, name, place)
    run.summary.update(dict(summary))
    run.finish()
    for path in earlier:
        shutil.rmtree(path, ignore_errors=True)


def _set_aside(folder: Path) -> list[Path]:
    """Moves earlier files of this run out of the way; those that a kill left behind too."""
    for path in sorted(folder.glob("offline-run-*")):
        path.rename(path.with_name(f"replaced-{time.time_ns()}"))
    return sorted(folder.glob("replaced-*"))


def _log_report(run: Any, report: Path) -> None:
    """The study's table and figures."""
    import csv

    import wandb

    with (report / "cells.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    content: dict[str, Any] = {"cells": wandb.Table(columns=list[Any](rows[0]), data=[[_number(one) for one in row] for row in rows[1:]])}
    for picture in sorted((report / "figures").glob("*.png")):
        content[f"figures/{picture.stem}"] = wandb.Image(str(picture))
    run.log(content)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text or None


def _reference(run: Any, name: str, path: str) -> None:
    import wandb

    artifact = wandb.Artifact(name, type=name.partition("-")[0])
    artifact.add_reference(Path(path).absolute().as_uri(), checksum=False)
    run.log_artifact(artifact)


def report_summary(report: Path) -> dict[str, Any]:
    """The verdicts of a report, for the summary of the study's run."""
    content = read_json(report / "summary.json") or {}
    found = {f"verdict.{one['student']}": one["outcome"] for one in content.get("verdicts", [])}
    return found | {name: content[name] for name in ("cells", "toy_world") if name in content}
