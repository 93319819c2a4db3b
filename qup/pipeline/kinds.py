"""The stage kinds, and all that is known of each. Modules are named, not imported: a stage's code is loaded only where it runs.

A new kind takes its module in qup/stages, a view in qup/config/views.py, and an entry here and in build.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Protocol

from qup.answers import VERSION
from qup.config import views
from qup.config.schema import Benchmark, Cluster, Oracle, Problems, Resources, Sampling, Source
from qup.pipeline.nodes import Node, Ref

ASSUMED_SOLVABLE = 0.34
"""Share of problems with a correct rollout (the study's 34k of 100k)."""
ASSUMED_SOLVABLE_LAB = 0.9
ASSUMED_ELIGIBLE = 0.5
"""Share of a solvable problem's rollouts that are eligible."""
ASSUMED_RETRIES = 0.15
"""Further Oracle requests for each first one."""
ORDER_TOKENS = 350
"""Tokens of the Oracle's orders and the problem."""
RATING_TOKENS = 60
"""Tokens of a judge's answer."""

Asked = tuple[float, float, float]
"""Requests, input tokens, output tokens."""


class Sizes(Protocol):
    """What a kind is told of the graph that a stage stands in."""

    def node(self, ref: Ref, /) -> Node: ...

    def problems(self, ref: Ref, /) -> float:
        """Expected problems that a stage covers."""

    def rows(self, ref: Ref, /) -> float:
        """Expected rows of a stage's main table."""

    def count(self, data: Problems | Benchmark, /) -> int:
        """Rows of a data set."""

    def given(self, source: Source, data: Problems, /) -> float:
        """Traces of a problem that files hold."""


def _problems(node: Node, sizes: Sizes) -> float:
    return sizes.problems(node.ref)


def _rows(node: Node, sizes: Sizes) -> float:
    return sizes.rows(node.ref)


@dataclass(frozen=True)
class Kind:
    name: str
    view: type
    resources: str
    """The field of Cluster that says what it asks for."""
    asking: str = ""
    """The field of Cluster for those of its stages that ask an Oracle, where it is another."""
    drawing: str = ""
    """The field of Cluster for those of its stages that draw from the student as well: whose view says how."""
    version: int = 1
    """Rises when its results change for equal fields and inputs."""
    sharded: bool = False
    """Its module has `plan`, `shard` and `merge` in place of `run`, and several workers may share it."""
    ranks: bool = False
    """Runs as several processes that know of each other, on several nodes where asked to."""
    row: bool = False
    """A cell's row and the report are read from it."""
    weights: Callable[[Any], int] | None = None
    """Its folders hold weights, so many copies by its view, which `store.keep_weights` may take away once they were used."""
    endpoint: str = ""
    """The section of its view that may name an endpoint of others, dotted."""
    section: str = ""
    """That section in the configuration, where it stands elsewhere there."""
    covers: Callable[[Node, Sizes], float] | None = None
    """Expected problems; those of its inputs where it doesn't say."""
    counted_by: str = ""
    """The figure of a stored result that tells how many problems it covers."""
    rows: Callable[[Node, Sizes], float] = _problems
    """Expected rows of its main table."""
    units: Callable[[Node, Sizes], float] = _rows
    """Expected units of work; rates are seconds a unit."""
    seconds: tuple[float, float] = (1e-4, 1e-4)
    """Seconds a unit on the resources asked for where none were measured: lab models on a core, models of a few billion weights on a GPU."""
    bytes: int = 100
    """Bytes a unit leaves in the store."""
    asks: Callable[[Node, Sizes, float], Asked] | None = None
    """What it asks of its Oracle or judge, given the tokens of a trace."""

    @property
    def module(self) -> str:
        return f"qup.stages.{self.name}"

    @property
    def computes(self) -> bool:
        """Whether a model runs in it, on a GPU where there is one."""
        return self.resources in ("rollouts", "reward", "perplexity", "train", "evaluate")

    @property
    def tracked(self) -> bool:
        """Whether its runs are shown by the tracker."""
        return "tracking" in {field.name for field in fields(self.view)}

    def asked_of(self, view: Any) -> Oracle | Sampling | None:
        """The section of a view that tells who answers."""
        found = attrgetter(self.endpoint)(view) if self.endpoint else None
        assert found is None or isinstance(found, Oracle | Sampling)
        return found


def _solvable(node: Node, sizes: Sizes) -> float:
    rollouts = sizes.node(node.inputs["verdicts"]).inputs["rollouts"]
    model = sizes.node(rollouts).view.model
    return sizes.problems(node.inputs["problems"]) * (ASSUMED_SOLVABLE if model.lab is None else ASSUMED_SOLVABLE_LAB)


def _pool(node: Node, sizes: Sizes) -> float:
    view, problems = node.view, sizes.problems(node.inputs["solvable"])
    drawn = sizes.node(node.inputs["rollouts"]).view.sampling.n
    if view.source.name == "student" and view.refinement.name == "none":
        return problems * float(drawn)
    if view.source.name == "file" and view.refinement.name == "none":
        return problems * sizes.given(view.source, sizes.node(node.inputs["problems"]).view.problems)
    if view.refinement.input == "all" and view.refinement.name != "none":
        return problems * max(1.0, drawn * ASSUMED_ELIGIBLE)
    return problems * float(view.source.samples)


def _kept(node: Node, sizes: Sizes) -> float:
    """Rows of a stream: up to selection.keep a problem, and no more than its pools hold."""
    whole = sum(sizes.rows(ref) for name, ref in node.inputs.items() if name.startswith("pool."))
    return max(sizes.problems(node.ref), min(sizes.problems(node.ref) * node.view.selection.keep, whole))


def _traces(node: Node, sizes: Sizes) -> float:
    return sizes.rows(node.inputs["traces"]) if "traces" in node.inputs else sizes.problems(node.inputs["solvable"])


def _scored(node: Node, sizes: Sizes) -> float:
    """Traces to be scored: those out of a scored pool are looked up there."""
    pools = [name for name in sizes.node(node.inputs["traces"]).inputs if name.startswith("pool.")] if "traces" in node.inputs else []
    unscored = sum(name not in node.hints for name in pools)
    return _traces(node, sizes) * (unscored / len(pools) if pools else 1.0)


def _measured(node: Node, sizes: Sizes) -> float:
    traces = _scored(node, sizes)
    return min(traces, float(node.view.measure.problems)) if node.view.measure.kind == "grace" else traces


def _trained(node: Node, sizes: Sizes) -> float:
    trainer = node.view.trainer
    examples = sizes.rows(node.inputs["stream"]) * float(trainer.epochs)
    return min(examples, float(trainer.max_steps * trainer.batch_size)) if trainer.max_steps else examples


def _judged(node: Node, sizes: Sizes) -> float:
    return min(sizes.problems(node.ref), float(node.view.retention.sample))


def _benchmarks(node: Node, sizes: Sizes) -> float:
    evaluation = node.view.evaluation
    return float(sum(sizes.count(data) for data in evaluation.benchmarks.values()) * evaluation.sampling.n)


def _answered(node: Node, sizes: Sizes) -> float:
    return _benchmarks(sizes.node(node.inputs["responses"]), sizes)


def _drawn(node: Node, sizes: Sizes) -> float:
    return sizes.problems(node.ref) * float(node.view.sampling.n)


def _verified(node: Node, sizes: Sizes) -> float:
    return _drawn(sizes.node(node.inputs["rollouts"]), sizes)


def _verifying(own: int) -> int:
    """The version of a kind of which part is to verify."""
    return 100 * own + VERSION


def _written(node: Node, sizes: Sizes, tokens: float) -> Asked:
    view = node.view
    if view.oracle.backend == "none":
        return 0.0, 0.0, 0.0
    requests = sizes.rows(node.ref) * (1 + (ASSUMED_RETRIES if view.refinement.retries else 0))
    return requests, requests * (ORDER_TOKENS + (tokens if view.refinement.name != "none" else 0)), requests * tokens


def _compared(node: Node, sizes: Sizes, tokens: float) -> Asked:
    requests, traces = _judged(node, sizes), 1 + len(getattr(node.view, "arms", ("the arm",)))
    return requests, requests * (ORDER_TOKENS + traces * tokens), requests * RATING_TOKENS


# fmt: off
KINDS = {
    kind.name: kind
    for kind in (
        Kind("problems", views.ProblemsView, "problems", covers=lambda node, sizes: sizes.count(node.view.problems), counted_by="n", seconds=(2e-4, 2e-4)),
        Kind("student", views.StudentView, "student", units=lambda node, _: node.view.lab.steps, seconds=(0.03, 0.03)),
        Kind("reward_model", views.RewardModelView, "reward_model", units=lambda node, _: node.view.lab.traces, seconds=(0.006, 0.006)),
        Kind(
            "rollouts", views.RolloutsView, "rollouts", sharded=True, endpoint="sampling", section="rollouts.sampling", version=2,
            units=_drawn, seconds=(0.008, 0.15), bytes=4000,
        ),
        Kind("verdicts", views.VerdictsView, "streams", version=VERSION, sharded=True, units=_verified, seconds=(2e-4, 5e-4), bytes=40),
        Kind("solvable", views.SolvableView, "solvable", row=True, covers=_solvable, counted_by="n_solvable"),
        Kind(
            "candidates", views.CandidatesView, "streams", asking="oracle", drawing="rollouts", version=_verifying(4), sharded=True, endpoint="oracle",
            rows=_pool, seconds=(0.002, 0.02), bytes=1200, asks=_written,
        ),
        Kind("accept", views.AcceptView, "streams"),
        Kind("aligned", views.AlignedView, "streams", row=True, counted_by="n"),
        Kind("stream", views.StreamView, "streams", row=True, rows=_kept, seconds=(2e-4, 2e-4), bytes=1500),
        Kind("reward", views.RewardView, "reward", sharded=True, row=True, rows=_traces, units=_scored, seconds=(0.003, 0.25)),
        Kind(
            "perplexity", views.PerplexityView, "perplexity", version=2, sharded=True, row=True,
            rows=_traces, units=_scored, seconds=(0.003, 0.02), bytes=4000,
        ),
        Kind(
            "measure", views.MeasureView, "perplexity", version=2, sharded=True, row=True,
            rows=_traces, units=_measured, seconds=(0.01, 0.15), bytes=200,
        ),
        Kind("retention", views.RetentionView, "retention", version=2, row=True, endpoint="judge", units=_judged, seconds=(0.001, 0.02), asks=_compared),
        Kind("ranking", views.RankingView, "retention", row=True, endpoint="judge", units=_judged, seconds=(0.001, 0.02), asks=_compared),
        Kind(
            "train", views.TrainView, "train", ranks=True, row=True, weights=lambda view: 1 + len(view.trainer.evaluate_at),
            units=_trained, seconds=(0.012, 0.12),
        ),
        Kind(
            "responses", views.ResponsesView, "evaluate", sharded=True, endpoint="evaluation.sampling",
            units=_benchmarks, seconds=(0.008, 0.15), bytes=1500,
        ),
        Kind("evaluate", views.EvaluateView, "streams", version=_verifying(2), row=True, units=_answered, seconds=(2e-4, 5e-4), bytes=40),
    )
}
# fmt: on


def resources(kind: str, view: object, cluster: Cluster) -> Resources:
    """What one stage asks for; candidates that call an Oracle hold no GPU and wait on an API, unless the student writes along."""
    about = KINDS[kind]
    if about.drawing and getattr(view, "sampling", None) is not None:
        drawn = getattr(cluster, about.drawing)
        assert isinstance(drawn, Resources)
        return drawn
    asked = about.asked_of(view) if about.asking else None
    found = getattr(cluster, about.asking if asked is not None and asked.backend != "none" else about.resources)
    assert isinstance(found, Resources)
    return found
