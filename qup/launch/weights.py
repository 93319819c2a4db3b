"""Fine-tuned weights after their evaluation: kept, only the best of each student, or none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from qup.launch.plan import Plan
from qup.launch.registry import read_study
from qup.pipeline.graph import Ref
from qup.store import Store
from qup.store.store import write_json


def prune_weights(plan: Plan, keep: str) -> list[Ref]:
    """Takes away weights that `keep` (all | best | none) does not want. Figures and curves stay.

    Weights that a study registered in this store needs for an evaluation still to come are left alone.
    """
    if keep == "all":
        return []
    best = (_best(plan) if keep == "best" else set()) | awaited(plan.store)
    pruned = []
    for cell in plan.graph.cells:
        key = cell.stages.get("train")
        if key is None:
            continue
        ref = Ref("train", key)
        shares = cell.stages.get("evaluate_at") or {"1.0": cell.stages["evaluate"]}
        if ref in best or ref in pruned or not all(plan.store.exists("evaluate", entry) for entry in shares.values()):
            continue
        artifact = plan.store.get_sound(*ref)
        if artifact is None or (artifact.path / "pruned").exists():
            continue
        _drop_weights(artifact.path, artifact.manifest)
        pruned.append(ref)
    return pruned


def awaited(store: Store) -> set[Ref]:
    """Train stages that some registered study has yet to evaluate."""
    found: set[Ref] = set()
    for folder in sorted(store.studies.iterdir()) if store.studies.is_dir() else []:
        record = read_study(folder)
        for name, parents in (record["nodes"] if record else {}).items():
            ref = Ref.parse(name)
            if ref.kind == "evaluate" and not store.exists(*ref):
                found.update(parent for parent in map(Ref.parse, parents) if parent.kind == "train")
    return found


def _best(plan: Plan) -> set[Ref]:
    """The train stage with the highest total for each student."""
    best: dict[str, tuple[float, Ref]] = {}
    for cell in plan.graph.cells:
        if "train" not in cell.stages:
            continue
        artifact = plan.store.get_sound("evaluate", cell.stages["evaluate"])
        if artifact is None:
            continue
        total, name = float(artifact.metrics["total"]), cell.config.model.name
        if name not in best or total > best[name][0]:
            best[name] = (total, Ref("train", cell.stages["train"]))
    return {ref for _, ref in best.values()}


def _drop_weights(path: Path, manifest: dict[str, Any]) -> None:
    (path / "pruned").touch()
    kept = {name: entry for name, entry in manifest["files"].items() if "/" not in name}
    write_json(path / "manifest.json", dict(manifest, files=kept))
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
