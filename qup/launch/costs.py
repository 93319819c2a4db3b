"""What a stage is expected to cost, from measured rates where the store has some and stated defaults elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qup.config.paths import local
from qup.config.schema import Benchmark, Model, Oracle, Problems, Resources, Source
from qup.launch.rates import Rates
from qup.models.size import ITEM_BYTES, parameters
from qup.pipeline.graph import Graph, Node, Ref
from qup.pipeline.kinds import KINDS
from qup.pipeline.sizes import GraphSizes
from qup.store import Store

ASSUMED_PROBLEMS, ASSUMED_BENCHMARK = 100_000, 500
"""Rows of a data set that cannot be counted from here."""
ASSUMED_TEACHERS = 4
"""Traces of a problem in a set that cannot be counted from here."""
ASSUMED_TOKENS = 450
"""Tokens of a trace."""
LAB_TOKENS = 70
ASSUMED_STARTUP_S = 2.0
"""Of a stage's process: imports and tables. Weights of billions take longer, and what follows them takes longer still."""

LAB_MODEL_BYTES = 1 << 20
MODEL_BYTES = 4 << 30
"""Of a student of which neither files nor name tell how large it is."""
STATED_FOR = 1.5e9
"""Weights that a kind's rate on a GPU is stated for, or more."""
CORE_S = 15.0
"""Seconds that a core takes for what a GPU does in one."""
TOKENIZER_BYTES = 16 << 10
"""What lies beside saved weights, at the least."""


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
        from qup.data.formats import count_local  # pyarrow

        path = local(data.path)
        found = count_local(path, data.split, data.subset) if path is not None else None
        rows = found if found is not None else ASSUMED_PROBLEMS if isinstance(data, Problems) else ASSUMED_BENCHMARK
    return min(rows, data.limit or rows)


def traces_each(source: Source, problems: Problems) -> float:
    """Traces of a problem that files hold: their rows over the data set's, 1 at the least; a stated guess for a set on the hub."""
    from qup.data.formats import count_local  # pyarrow
    from qup.data.traces import is_hub, trace_files

    if is_hub(source):
        return ASSUMED_TEACHERS
    rows = sum(count_local(file, "train") or 0 for file in trace_files(source))
    return max(1.0, rows / max(1, count_rows(replace(problems, limit=None))))


def gpus_at_work(node: Node, resources: Resources) -> int:
    """GPUs that compute at a time, at least 1: in process a model spread over several works on one after the other."""
    view = node.view
    sections = [KINDS[node.kind].asked_of(view), getattr(view, "reward", None)]
    served = any(getattr(section, "backend", "") == "vllm" for section in sections)
    return max(1, gpu_count(resources)) if served or KINDS[node.kind].ranks else 1


class Estimator:
    """Sizes, times rates."""

    def __init__(self, graph: Graph, store: Store) -> None:
        self.store = store
        self._sizes = GraphSizes(graph, self._stored_count, count_rows, traces_each)
        self._rates = Rates(store.root)
        self._parameters: dict[tuple[str, str | None, str], float | None] = {}

    def cost(self, node: Node, resources: Resources) -> Cost:
        kind = KINDS[node.kind]
        units = float(kind.units(node, self._sizes))
        lab = _is_lab(node.view)
        measured = self._rates.of(node.kind, node.view)
        unit_s = self._assumed_s(node, resources, lab) / (1 if lab else gpus_at_work(node, resources) * max(1, resources.workers))
        seconds = ASSUMED_STARTUP_S + units * unit_s
        if measured is not None:
            seconds = measured.startup_s + units * (unit_s if measured.unit_s is None else measured.unit_s)
        tokens = LAB_TOKENS if lab else ASSUMED_TOKENS
        requests, input_tokens, output_tokens = kind.asks(node, self._sizes, tokens) if kind.asks else (0.0, 0.0, 0.0)
        if measured is not None and requests and measured.input_tokens is not None and measured.output_tokens is not None:
            input_tokens, output_tokens = units * measured.input_tokens, units * measured.output_tokens
        oracle = kind.asked_of(node.view)
        usd = 0.0
        if isinstance(oracle, Oracle) and requests:
            half = 0.5 if oracle.mode == "batch" else 1.0
            usd = half * (input_tokens * oracle.usd_per_million_input + output_tokens * oracle.usd_per_million_output) / 1e6
        size = int(max(units, kind.rows(node, self._sizes)) * kind.bytes)
        if kind.weights:
            size = self._weights_bytes(node.view) * kind.weights(node.view)
        return Cost(
            units=units,
            seconds=seconds,
            gpu_hours=seconds * gpu_count(resources) / 3600,
            cpu_hours=seconds * resources.nodes * resources.tasks * resources.cpus / 3600,
            bytes=size,
            oracle_input_tokens=input_tokens,
            oracle_output_tokens=output_tokens,
            oracle_usd=usd,
            measured=measured is not None,
        )

    def _assumed_s(self, node: Node, resources: Resources, lab: bool) -> float:
        """Seconds a unit as stated; of a student with fewer weights than the statement is for, nearer to a lab student's, and
        longer where a GPU is missing."""
        kind = KINDS[node.kind]
        small, large = kind.seconds
        model = getattr(node.view, "model", None)
        if lab or not isinstance(model, Model) or not kind.computes:
            return small if lab else large
        if not gpu_count(resources) and not getattr(kind.asked_of(node.view), "base_url", None):
            large *= CORE_S
        found = self._parameters_of(model)
        return large if found is None else small + (large - small) * min(1.0, found / STATED_FOR)

    def _weights_bytes(self, view: Any) -> int:
        """Bytes that a trained student's weights take, saved as they were trained."""
        if view.model.lab is not None:
            return LAB_MODEL_BYTES
        found = self._parameters_of(view.model)
        return MODEL_BYTES if found is None else int(found * ITEM_BYTES[view.trainer.dtype]) + TOKENIZER_BYTES

    def _parameters_of(self, model: Model) -> float | None:
        known = model.path, model.gguf_file, model.content
        if known not in self._parameters:
            self._parameters[known] = parameters(model)
        return self._parameters[known]

    def _stored_count(self, ref: Ref) -> float | None:
        artifact = self.store.get_sound(*ref)
        count = None if artifact is None else artifact.metrics.get(KINDS[ref.kind].counted_by)
        return None if count is None else float(count)


def _is_lab(view: Any) -> bool:
    for name in ("model", "reward", "problems"):
        owner = getattr(view, name, None)
        if owner is not None:
            return getattr(owner, "lab", None) is not None
    oracle = getattr(view, "oracle", None) or getattr(view, "judge", None)
    return oracle is None or oracle.backend == "lab"
