"""Why a cell's stages are stored or stale: which field, file or input changed a key."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from qup.config.fingerprint import fields
from qup.launch.changes import differences
from qup.launch.code import stage_code
from qup.pipeline import KINDS, Graph, Node, Ref, build_graph
from qup.store import Artifact, Store
from qup.study import find_cell

SHOWN = 6
"""Differences shown for one stage."""


def explain(study: str | None, shown: Path, cell: str, console: Console) -> int:
    """One line a stage of the cell, in order; a missing one with what tells it from its nearest stored relative."""
    found, entry = find_cell(cell, study, shown)
    graph = build_graph(found.configs())
    store = found.open_store()
    number = next(i for i, made in enumerate(graph.cells) if made.label == entry.label)
    console.print(f"[bold]{entry.label}[/] in {found.name} ({found.folder})")
    near = _by_kind(store)
    for ref, node in graph.nodes.items():
        if number not in graph.users.get(ref, ()):
            continue
        artifact = store.get_sound(*ref)
        if artifact is not None:
            note = "" if artifact.manifest["code"] == stage_code(ref.kind, store.root) else "  made by other code of the same version"
            adopted = artifact.manifest.get("adopted_from")
            note += f"  adopted from {adopted}: equal work" if adopted else ""
            console.print(f"stored   {ref}  {node.label}{note}")
            continue
        console.print(f"missing  {ref}  {node.label}")
        for line in _reasons(graph, store, node, near.get(ref.kind, [])):
            console.print(f"         {line}")
    return 0


def _by_kind(store: Store) -> dict[str, list[Artifact]]:
    found: dict[str, list[Artifact]] = {}
    for artifact in store.artifacts():
        found.setdefault(artifact.stage, []).append(artifact)
    return found


def _reasons(graph: Graph, store: Store, node: Node, relatives: list[Artifact]) -> list[str]:
    if not relatives:
        return ["nothing of this kind is stored"]
    mine = fields(node.view)
    inputs = {name: {"stage": ref.kind, "key": ref.key} for name, ref in node.inputs.items()}
    options = []
    for artifact in relatives:
        changed = differences(artifact.manifest["fields"], mine)
        theirs = {name: {"stage": entry["stage"], "key": entry["key"]} for name, entry in artifact.manifest["inputs"].items()}
        moved = [
            f"input {name}: {_name(theirs.get(name))} → {_name(inputs.get(name))}"
            for name in sorted(theirs.keys() | inputs.keys())
            if theirs.get(name) != inputs.get(name)
        ]
        if artifact.manifest["version"] != KINDS[node.kind].version:
            changed.insert(0, f"stage version: {artifact.manifest['version']} → {KINDS[node.kind].version}")
        options.append((len(changed) + len(moved), changed + moved, artifact))
    count, lines, artifact = min(options, key=lambda option: option[0])
    head = f"nearest stored: {artifact.key}, made for {artifact.manifest['study']}"
    more = [f"… and {count - SHOWN} more"] if count > SHOWN else []
    return [head, *lines[:SHOWN], *more]


def _name(entry: dict[str, str] | None) -> str:
    return "none" if entry is None else str(Ref(entry["stage"], entry["key"]))
