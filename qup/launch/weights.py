"""Fine-tuned weights go as soon as no study needs or keeps them; figures and curves stay.

Each cell says by `store.keep_weights` what becomes of its weights once they are evaluated. Weights that several cells
share, of whatever studies, stay as long as one of them says so.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from qup.files import write_json
from qup.launch.plan import Plan
from qup.pipeline import KINDS
from qup.pipeline.graph import Ref
from qup.store import Lease, Store
from qup.store.artifact import PRUNED
from qup.study import Cell, Study, registered


def let_go(store: Store, study_dir: Path, evaluation: Ref | None = None) -> list[Ref]:
    """Takes away the weights of a study that may go; after one `evaluation`, only those it decides about.

    Who registers a study looks for taken weights afterwards (`lost`), and who takes weights marks them and looks
    at the registered studies after that. So one of the two sees the other, and nothing that is needed is taken.
    """
    study = Study.at(study_dir)
    if study is None:
        return []
    asked = _decided(study, evaluation) if evaluation else {ref for ref, _ in _trained(study)}
    kept = {ref for ref, cell in _trained(study) if _keeps(cell) == "all"}
    there = {ref for ref in asked - kept if _folders(store.path(*ref))}
    return [ref for ref in sorted(_free(store, there)) if _take(store, ref, partial(_free, store, {ref}))] if there else []


def lost(plan: Plan) -> bool:
    """Whether a result that the plan takes from the store, or weights that it evaluates, were taken away since it was made."""
    if not all(plan.store.exists(*ref) for ref in plan.stored):
        return True
    needed = {ref for planned in plan.to_run.values() for ref in planned.node.inputs.values() if KINDS[ref.kind].weights}
    return any((plan.store.path(*ref) / PRUNED).exists() for ref in needed if ref in plan.stored)


def _free(store: Store, among: Collection[Ref]) -> set[Ref]:
    """Those that no registered study needs or keeps."""
    return set(among).difference(*(_held(store, study, set(among)) for study in registered(store)))


def _trained(study: Study) -> Iterator[tuple[Ref, Cell]]:
    """Each cell that trains, with its training."""
    for cell in study.cells:
        for stage in cell.refs("train"):
            yield stage.ref, cell


def _decided(study: Study, evaluation: Ref) -> set[Ref]:
    """Trainings whose weights an evaluation may free: its own, and those it may turn out to be better than."""
    own = set(_weights_of(study, evaluation))
    students = {_student(cell) for ref, cell in _trained(study) if ref in own and _keeps(cell) == "best"}
    return {ref for ref, cell in _trained(study) if ref in own or (_keeps(cell) == "best" and _student(cell) in students)}


def _weights_of(study: Study, ref: Ref) -> list[Ref]:
    """The trainings that a stage draws responses from, or whose responses it judges."""
    parents = study.nodes.get(ref, ())
    drawn = [weights for parent in parents if parent.kind == "responses" for weights in study.nodes.get(parent, ())]
    return [weights for weights in (*parents, *drawn) if KINDS[weights.kind].weights]


def _keeps(cell: Cell) -> str:
    return str(cell.get("store.keep_weights", "all"))


def _student(cell: Cell) -> str:
    return str(cell.get("model.name"))


def _held(store: Store, study: Study, among: set[Ref]) -> set[Ref]:
    """Trainings whose weights a study has yet to evaluate, or keeps."""
    held = {ref for ref, cell in _trained(study) if ref in among and _keeps(cell) == "all"}
    for ref in study.nodes:
        own = among.intersection(_weights_of(study, ref))
        if own and _open(store, ref, study):
            held |= own
    return held | (_best(store, study, among) & among) | _adoptable(store, study, among)


def _adoptable(store: Store, study: Study, among: set[Ref]) -> set[Ref]:
    """Trainings that one of this study's may yet be adopted from: it is to run, on another stream of the same data."""
    streams = {}
    for ref, parents in study.nodes.items():
        if ref.kind == "train" and not store.exists(*ref):
            for parent in (parent for parent in parents if parent.kind == "stream"):
                artifact = store.get_sound(*parent)
                streams[parent.key] = artifact.digest if artifact is not None else ""
    found = set()
    for ref in among if streams else ():
        artifact = store.get_sound(*ref)
        own = artifact.manifest["inputs"].get("stream") if artifact is not None else None
        if own and any(key != own["key"] and digest == own["digest"] for key, digest in streams.items()):
            found.add(ref)
    return found


def _best(store: Store, study: Study, among: set[Ref]) -> set[Ref]:
    """The training with the highest total so far of each student of these, over the cells that keep the best; the first of equals."""
    students = {_student(cell) for ref, cell in _trained(study) if ref in among}
    found: dict[str, list[tuple[float, Ref]]] = {}
    for ref, cell in _trained(study):
        total = _total(store, cell) if _keeps(cell) == "best" and _student(cell) in students else None
        if total is not None:
            found.setdefault(_student(cell), []).append((total, ref))
    return {max(entries, key=lambda one: one[0])[1] for entries in found.values()}


def _open(store: Store, evaluation: Ref, study: Study) -> bool:
    """Whether an evaluation is still to be made, or made anew."""
    stale = study.again.get(evaluation)
    if stale is None:
        return not store.exists(*evaluation)
    artifact = store.get_sound(*evaluation)
    return artifact is None or artifact.manifest.get("finished") == stale


def _total(store: Store, cell: Cell) -> float | None:
    artifact = store.get_sound("evaluate", cell.stages["evaluate"])
    if artifact is None:
        return None
    total = float(artifact.metrics["total"])
    return -math.inf if math.isnan(total) else total


def _folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []


def _take(store: Store, ref: Ref, free: Callable[[], object]) -> bool:
    """Marks the artifact, and takes its weights away if they are still free then; leaves it to whoever holds its lease."""
    lease = Lease(store.lease_path(*ref), store.lease_s)
    if not lease.acquire():
        return False
    lease.watch()
    try:
        artifact = store.get_sound(*ref)
        if artifact is None:
            return False
        kept = {name: entry for name, entry in artifact.manifest["files"].items() if "/" not in name}
        if kept != artifact.manifest["files"]:
            (artifact.path / PRUNED).touch()
            if not free():
                (artifact.path / PRUNED).unlink()
                return False
            write_json(artifact.path / "manifest.json", dict(artifact.manifest, files=kept))
        for folder in _folders(artifact.path):
            shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        lease.release()
