"""What a stage is expected to cost, from measured rates where the store has some and stated defaults elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qup.config import views
from qup.config.paths import local
from qup.config.schema import Benchmark, Oracle, Problems, Resources
from qup.data.formats import count_local
from qup.pipeline.graph import Graph, Node, Ref
from qup.store import Store

ASSUMED_PROBLEMS, ASSUMED_BENCHMARK = 100_000, 500
"""Rows of a data set that cannot be counted from here."""
ASSUMED_SOLVABLE = 0.34
"""Share of problems with a correct rollout (the study's 34k of 100k)."""
ASSUMED_ELIGIBLE = 0.5
"""Share of a solvable problem's rollouts that are eligible."""
ASSUMED_RETRIES = 0.15
"""Further Oracle requests for each first one."""
ASSUMED_TOKENS = 450
"""Tokens of a trace; lab traces have about 70."""
ORDER_TOKENS = 350
"""Tokens of the Oracle's orders and the problem."""
COUNTED_BY = {"problems": "n", "solvable": "n_solvable", "aligned": "n"}
"""The figure of a stored artifact that tells how many problems it covers."""
RECENT = 20
"""Artifacts of a kind that a measured rate is taken from."""

# Seconds a unit on the resources asked for: in the lab (tiny models, one core), and for models of a few billion weights on one GPU.
DEFAULT_SECONDS = {
    "problems": (2e-4, 2e-4),
    "student": (0.03, 0.03),
    "reward_model": (0.006, 0.006),
    "rollouts": (0.008, 0.15),
    "solvable": (1e-4, 1e-4),
    "candidates": (0.002, 0.02),
    "accept": (1e-4, 1e-4),
    "aligned": (1e-4, 1e-4),
    "stream": (2e-4, 2e-4),
    "reward": (0.003, 0.25),
    "perplexity": (0.003, 0.02),
    "retention": (0.001, 0.02),
    "ranking": (0.001, 0.02),
    "train": (0.012, 0.12),
    "evaluate": (0.008, 0.15),
}
BYTES_A_UNIT = {"rollouts": 4000, "candidates": 1200, "stream": 1500, "perplexity": 4000, "evaluate": 1500}
LAB_MODEL_BYTES = 2 << 20
MODEL_BYTES = 4 << 30


@dataclass(frozen=True)
class Cost:
    """Expected cost of one stage run."""

    units: float
    seconds: float
    gpu_hours: float
    cpu_hours: float
    bytes: int
    oracle_input_tokens: float
    oracle_output_tokens: float
    oracle_usd: float
    measured: bool
    """True: from earlier runs in the store; False: from stated defaults."""


def gpu_count(resources: Resources) -> int:
    """GPUs over all nodes."""
    return resources.nodes * int(resources.gpus.rpartition(":")[2] or 0)


def count_rows(data: Problems | Benchmark) -> int:
    """Rows of a data set, without loading it; a stated guess where it can't be counted from here."""
    if data.lab is not None:
        rows = data.lab.n
    else:
        path = local(data.path)
        found = count_local(path, data.split) if path is not None else None
        rows = found if found is not None else ASSUMED_PROBLEMS if isinstance(data, Problems) else ASSUMED_BENCHMARK
    return min(rows, data.limit or rows)


class Estimator:
    """Sizes and rates, walked down the graph."""

    def __init__(self, graph: Graph, store: Store) -> None:
        self.graph, self.store = graph, store
        self._problems: dict[Ref, float] = {}
        self._rates: dict[tuple[str, str], float | None] = {}
        self._rows: dict[int, int] = {}

    def cost(self, node: Node, resources: Resources) -> Cost:
        """What running this node takes."""
        units = self._units(node)
        lab = _is_lab(node.view)
        rate = self._measured(node)
        seconds = units * (rate if rate is not None else DEFAULT_SECONDS[node.kind][0 if lab else 1])
        if rate is None and not lab:
            seconds /= max(1, gpu_count(resources)) * max(1, resources.workers)
        asked, input_tokens, output_tokens = self._oracle(node, lab)
        oracle: Oracle | None = getattr(node.view, "oracle", None) or getattr(node.view, "judge", None)
        usd = 0.0
        if oracle is not None and asked:
            half = 0.5 if oracle.mode == "batch" else 1.0
            usd = half * (input_tokens * oracle.usd_per_million_input + output_tokens * oracle.usd_per_million_output) / 1e6
        size = int(units * BYTES_A_UNIT.get(node.kind, 100))
        if node.kind == "train":
            size = (LAB_MODEL_BYTES if lab else MODEL_BYTES) * (1 + len(node.view.trainer.evaluate_at))
        return Cost(
            units=units,
            seconds=seconds,
            gpu_hours=seconds * gpu_count(resources) / 3600,
            cpu_hours=seconds * resources.nodes * resources.tasks * resources.cpus / 3600,
            bytes=size,
            oracle_input_tokens=input_tokens,
            oracle_output_tokens=output_tokens,
            oracle_usd=usd,
            measured=rate is not None,
        )

    def _size(self, ref: Ref) -> float:
        """Expected problems that a stage covers."""
        if ref in self._problems:
            return self._problems[ref]
        node = self.graph.nodes[ref]
        known = self._stored_count(ref)
        if known is not None:
            size = known
        elif ref.kind == "problems":
            size = float(self._count(node.view.problems))
        elif ref.kind == "solvable":
            size = self._size(node.inputs["problems"]) * (
                0.9 if _is_lab(self.graph.nodes[node.inputs["rollouts"]].view) else ASSUMED_SOLVABLE
            )
        elif "aligned" in node.inputs:
            size = self._size(node.inputs["aligned"])
        elif "solvable" in node.inputs:
            size = self._size(node.inputs["solvable"])
        elif "problems" in node.inputs:
            size = self._size(node.inputs["problems"])
        else:
            size = 0.0
        self._problems[ref] = size
        return size

    def _count(self, data: Problems | Benchmark) -> int:
        if id(data) not in self._rows:
            self._rows[id(data)] = count_rows(data)
        return self._rows[id(data)]

    def _stored_count(self, ref: Ref) -> float | None:
        if ref.kind not in COUNTED_BY:
            return None
        artifact = self.store.get_sound(*ref)
        count = None if artifact is None else artifact.metrics.get(COUNTED_BY[ref.kind])
        return None if count is None else float(count)

    def _traces(self, ref: Ref) -> float:
        """Expected rows of a candidates or stream artifact."""
        node = self.graph.nodes[ref]
        view = node.view
        if ref.kind != "candidates":
            return self._size(ref)
        problems = self._size(node.inputs["solvable"])
        if view.source.name == "student" and view.refinement.name == "none":
            sampling = self.graph.nodes[node.inputs["rollouts"]].view.rollouts.sampling
            return problems * float(sampling.n)
        if view.refinement.input == "all" and view.refinement.name != "none":
            sampling = self.graph.nodes[node.inputs["rollouts"]].view.rollouts.sampling
            return problems * max(1.0, sampling.n * ASSUMED_ELIGIBLE)
        return problems * float(view.source.samples)

    def _units(self, node: Node) -> float:
        view = node.view
        match node.kind:
            case "student":
                return float(view.lab.steps)
            case "reward_model":
                return float(view.lab.traces)
            case "rollouts":
                return self._size(node.ref) * float(view.rollouts.sampling.n)
            case "candidates":
                return self._traces(node.ref)
            case "reward" | "perplexity":
                return self._traces(node.inputs["traces"]) if "traces" in node.inputs else self._size(node.inputs["solvable"])
            case "retention" | "ranking":
                return min(self._size(node.ref), float(view.retention.sample))
            case "train":
                return self._size(self.graph.nodes[node.inputs["stream"]].inputs["aligned"]) * float(view.trainer.epochs)
            case "evaluate":
                rows = sum(self._count(benchmark) for benchmark in view.evaluation.benchmarks.values())
                return float(rows * view.evaluation.sampling.n)
            case _:
                return self._size(node.ref)

    def _oracle(self, node: Node, lab: bool) -> tuple[bool, float, float]:
        view = node.view
        tokens = 70 if lab else ASSUMED_TOKENS
        if isinstance(view, views.CandidatesView) and view.oracle.backend != "none":
            asked = self._traces(node.ref) * (1 + (ASSUMED_RETRIES if view.refinement.retries else 0))
            given = ORDER_TOKENS + (tokens if view.refinement.name != "none" else 0)
            return True, asked * given, asked * tokens
        if isinstance(view, views.RetentionView):
            asked = self._units(node)
            return True, asked * (ORDER_TOKENS + 2 * tokens), asked * 60
        if isinstance(view, views.RankingView):
            asked = self._units(node)
            return True, asked * (ORDER_TOKENS + (1 + len(view.arms)) * tokens), asked * 60
        return False, 0.0, 0.0

    def _measured(self, node: Node) -> float | None:
        """Median seconds a unit over recent artifacts of this kind with the same model."""
        identity = _model_identity(node.view)
        known = (node.kind, identity)
        if known not in self._rates:
            self._rates[known] = self._read_rate(node.kind, identity)
        return self._rates[known]

    def _read_rate(self, kind: str, identity: str) -> float | None:
        folder = self.store.root / kind
        try:
            entries = sorted(
                (entry for entry in os.scandir(folder) if entry.is_dir()), key=lambda entry: entry.stat().st_mtime, reverse=True
            )
        except FileNotFoundError:
            return None
        rates = []
        for entry in entries[: 5 * RECENT]:
            try:
                manifest = json.loads((Path(entry.path) / "manifest.json").read_text())
            except (OSError, ValueError):
                continue
            if manifest.get("units") and not manifest.get("adopted_from") and _fields_identity(manifest["fields"]) == identity:
                rates.append(manifest["seconds"] / manifest["units"])
            if len(rates) == RECENT:
                break
        return sorted(rates)[len(rates) // 2] if rates else None


def _is_lab(view: Any) -> bool:
    for name in ("model", "reward", "problems"):
        owner = getattr(view, name, None)
        if owner is not None:
            return getattr(owner, "lab", None) is not None
    oracle = getattr(view, "oracle", None) or getattr(view, "judge", None)
    return oracle is None or oracle.backend == "lab"


def _model_identity(view: Any) -> str:
    model = getattr(view, "model", None) or getattr(view, "reward", None)
    return "" if model is None else str(model.content or "lab")


def _fields_identity(fields: Mapping[str, Any]) -> str:
    model = fields.get("model") or fields.get("reward")
    return "" if model is None else str(model.get("content") or "lab")
