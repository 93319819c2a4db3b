"""The plan: which stages a grid needs, which of them are stored, and what the rest will cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from qup.config.fingerprint import plain
from qup.config.schema import Config, Resources
from qup.errors import BudgetExceeded, QupError
from qup.files import read_json
from qup.launch.code import stage_code
from qup.launch.costs import Cost, Estimator
from qup.pipeline import KINDS, Graph, Node, Ref, build_graph
from qup.pipeline.kinds import resources as resources_of
from qup.store import Store

LEAST_SHARE = 0.1
"""Of a stage's expected cost, where it has spent more than was expected."""


@dataclass(frozen=True)
class Planned:
    """A stage that will run."""

    node: Node
    resources: Resources
    cost: Cost
    replace: bool = False
    own_code: bool = False
    """Nothing that other code made is to be taken in its place."""


@dataclass
class Plan:
    """A grid, compiled against a store."""

    study: str
    study_dir: Path
    store: Store
    graph: Graph
    stored: set[Ref]
    """Stages whose result is there and is needed by a cell or a stage that runs."""
    to_run: dict[Ref, Planned]
    """Stages to run, inputs first."""
    idle: set[Ref]
    """Stages that nothing missing depends on: neither stored results wanted nor to be run."""
    other_code: list[Ref]
    """Stored results that other code of the same stage version made."""
    cluster: str
    """Whose resources the stages ask for."""
    spent: Mapping[Ref, float] = field(default_factory=dict)
    """Oracle dollars that the study has spent already, by stage; looked for only where study.max_oracle_usd limits them."""
    slots: int | None = None
    """Most stages at once; None: nobody knows."""

    def totals(self) -> dict[str, Any]:
        """Sums over the stages to run, and counts."""
        costs = [planned.cost for planned in self.to_run.values()]
        by_kind: dict[str, dict[str, float]] = {}
        for planned in self.to_run.values():
            entry = by_kind.setdefault(planned.node.kind, {"stages": 0, "gpu_hours": 0.0, "cpu_hours": 0.0, "measured": 0})
            entry["stages"] += 1
            entry["gpu_hours"] += planned.cost.gpu_hours
            entry["cpu_hours"] += planned.cost.cpu_hours
            entry["measured"] += planned.cost.measured
        shared = sum(1 for ref in self.to_run if len(self.graph.users.get(ref, ())) > 1)
        return {
            "cells": len(self.graph.cells),
            "stage_runs": sum(len(self._reached(index)) for index in range(len(self.graph.cells))),
            "stages": len(self.graph.nodes),
            "stored": len(self.stored),
            "to_run": len(self.to_run),
            "shared": shared,
            "gpu_hours": sum(cost.gpu_hours for cost in costs),
            "cpu_hours": sum(cost.cpu_hours for cost in costs),
            "disk_bytes": self._disk_bytes(),
            "oracle_input_tokens": sum(cost.oracle_input_tokens for cost in costs),
            "oracle_output_tokens": sum(cost.oracle_output_tokens for cost in costs),
            "oracle_usd": sum(cost.oracle_usd for cost in costs),
            "by_kind": by_kind,
        }

    def _disk_bytes(self) -> int:
        """Bytes that the stages to run take at the most: weights that are not kept lie there until they are evaluated."""
        stays, passing, best = 0, [], set()
        for ref, planned in self.to_run.items():
            users: list[Config] = []
            if KINDS[ref.kind].weights:
                users = [self.graph.cells[index].config for index in self.graph.users.get(ref, ())]
            keep = {cell.store.keep_weights for cell in users}
            if not keep or "all" in keep:
                stays += planned.cost.bytes
                continue
            passing.append(planned.cost.bytes)
            best |= {cell.model.name for cell in users if cell.store.keep_weights == "best"}
        at_once = len(passing) if self.slots is None else self.slots + len(best)
        return stays + sum(sorted(passing, reverse=True)[:at_once])

    def _reached(self, cell: int) -> list[Ref]:
        if not hasattr(self, "_by_cell"):
            self._by_cell: dict[int, list[Ref]] = {}
            for ref, users in self.graph.users.items():
                for user in users:
                    self._by_cell.setdefault(user, []).append(ref)
        return self._by_cell.get(cell, [])

    def as_json(self) -> dict[str, Any]:
        """The whole plan for plan.json."""
        return {
            "study": self.study,
            "store": str(self.store.root),
            "cluster": self.cluster,
            "cells": [{"label": cell.label, "stages": cell.stages, "merged": cell.merged} for cell in self.graph.cells],
            "stages": [self._stage_json(node) for node in self.graph.nodes.values()],
            "totals": self.totals(),
            "other_code": [str(ref) for ref in self.other_code],
        }

    def _stage_json(self, node: Node) -> dict[str, Any]:
        planned = self.to_run.get(node.ref)
        state = "run" if planned else "stored" if node.ref in self.stored else "not needed"
        return {
            "key": node.key,
            "name": node.kind,
            "label": node.label,
            "state": state,
            "inputs": {name: str(ref) for name, ref in node.inputs.items()},
            "hints": {name: str(ref) for name, ref in node.hints.items()},
            "cells": [self.graph.cells[index].label for index in self.graph.users.get(node.ref, ())],
            "resources": plain(planned.resources) if planned else None,
            "cost": asdict(planned.cost) if planned else None,
        }


def published(store: Store, kinds: Sequence[str]) -> dict[str, set[str]]:
    """Keys of all published artifacts by kind: one directory listing a kind."""
    found = {}
    for kind in kinds:
        try:
            with os.scandir(store.root / kind) as entries:
                found[kind] = {entry.name for entry in entries if "." not in entry.name}
        except FileNotFoundError:
            found[kind] = set()
    return found


def make_plan(cells: Sequence[Config], study_dir: Path) -> Plan:
    """Compiles resolved cells. A stored result needs nothing above it; what is missing needs its inputs."""
    first = cells[0]
    store = Store(first.store.dir, first.store.lease_s)
    graph = build_graph(cells)
    return plan_graph(graph, store, first, study_dir)


def plan_graph(graph: Graph, store: Store, first: Config, study_dir: Path) -> Plan:
    """Compiles a graph against a store."""
    known = published(store, list(KINDS))
    policy = first.study.other_code
    required = {ref for cell in graph.cells for ref in cell.wanted}
    stored: set[Ref] = set()
    run: dict[Ref, bool] = {}
    other_code: list[Ref] = []
    weights_needed: set[Ref] = set()
    for ref in reversed(list(graph.nodes)):
        if ref not in required:
            continue
        node = graph.nodes[ref]
        artifact = store.get_sound(*ref) if ref.key in known[ref.kind] else None
        if artifact is not None:
            pruned = ref in weights_needed and artifact.pruned
            other = artifact.manifest["code"] != stage_code(ref.kind, store.root)
            if other:
                other_code.append(ref)
            if not pruned and not (other and policy == "recompute"):
                stored.add(ref)
                continue
            run[ref] = True
        else:
            run[ref] = False
        required.update(node.inputs.values())
        weights_needed.update(parent for parent in node.inputs.values() if KINDS[parent.kind].weights)
    if other_code and policy == "refuse":
        named = ", ".join(str(ref) for ref in other_code[:5])
        raise QupError(
            f"study.other_code=refuse: {len(other_code)} stored stages were made by other code of the same version ({named}"
            f"{', …' if len(other_code) > 5 else ''}); recompute them (study.other_code=recompute) or accept them (warn)"
        )
    estimator = Estimator(graph, store)
    to_run = {}
    for ref, node in graph.nodes.items():
        if ref in run:
            resources = resources_of(node.kind, node.view, first.cluster)
            to_run[ref] = Planned(node, resources, estimator.cost(node, resources), run[ref], policy != "warn")
    study = first.study.name or "study"
    budget = first.study.max_oracle_usd
    spent = {} if budget is None else spent_usd(graph, store, study)
    if budget is not None:
        share_budget(to_run, budget, spent)
    return Plan(
        study=study,
        study_dir=study_dir,
        store=store,
        graph=graph,
        stored=stored,
        to_run=to_run,
        idle=set(graph.nodes) - stored - set(to_run),
        other_code=other_code,
        cluster=first.cluster.name,
        spent=spent,
    )


def spent_usd(graph: Graph, store: Store, study: str) -> dict[Ref, float]:
    """Dollars of each stage that this study paid an Oracle for: what is stored, was set aside as corrupt, or is unfinished."""
    from qup.oracle import LEDGER, read_spent

    found: dict[Ref, float] = {}
    for ref in graph.nodes:
        if KINDS[ref.kind].asks is None:
            continue
        folders = [store.path(*ref), *store.corrupt.glob(f"{ref.kind}-{ref.key}-*")]
        paid = sum(_paid(folder, study) for folder in folders) + read_spent(store.work(*ref) / LEDGER).usd
        if paid:
            found[ref] = paid
    return found


def _paid(folder: Path, study: str) -> float:
    """Dollars that an artifact took, where this study had it made."""
    manifest = read_json(folder / "manifest.json")
    if manifest is None or manifest.get("study") != study or manifest.get("adopted_from"):
        return 0.0
    return float((manifest["metrics"].get("spent") or {}).get("usd", 0.0))


def share_budget(to_run: dict[Ref, Planned], budget: float, spent: Mapping[Ref, float]) -> None:
    """Gives each stage that calls an Oracle its share of what is left of the budget, by what it is still expected to cost.

    A stage's limit counts what it has spent itself before.
    """
    asking = {ref: planned for ref, planned in to_run.items() if hasattr(planned.node.view, "max_usd")}
    usd = {ref: planned.cost.oracle_usd for ref, planned in asking.items()}
    to_come = {ref: max(usd[ref] - spent.get(ref, 0.0), usd[ref] * LEAST_SHARE) for ref in asking}
    total = sum(to_come.values())
    left = max(0.0, budget - sum(spent.values()))
    for ref, planned in asking.items():
        limit = spent.get(ref, 0.0) + left * (to_come[ref] / total if total else 1 / len(asking))
        to_run[ref] = replace(planned, node=replace(planned.node, view=replace(planned.node.view, max_usd=limit)))


def check_budget(plan: Plan, first: Config) -> None:
    """Raises BudgetExceeded where the plan is above what the user allows."""
    totals = plan.totals()
    over = []
    if first.study.max_gpu_hours is not None and totals["gpu_hours"] > first.study.max_gpu_hours:
        over.append(f"study.max_gpu_hours={first.study.max_gpu_hours}: the plan takes {totals['gpu_hours']:.1f} GPU-hours")
    if first.study.max_oracle_usd is not None and totals["oracle_usd"]:
        spent = sum(plan.spent.values())
        to_come = sum(max(0.0, planned.cost.oracle_usd - plan.spent.get(ref, 0.0)) for ref, planned in plan.to_run.items())
        if spent + to_come > first.study.max_oracle_usd:
            before = f" beside ${spent:.2f} that the study has spent already" if spent else ""
            over.append(f"study.max_oracle_usd={first.study.max_oracle_usd}: the plan takes ${to_come:.2f}{before}")
    if over:
        raise BudgetExceeded("; ".join(over) + "; raise the limit, or make the grid smaller")
