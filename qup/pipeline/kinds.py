"""The stage kinds. Modules are named, not imported: a stage's code is loaded only where it runs."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config import views
from qup.config.schema import Cluster, Resources


@dataclass(frozen=True)
class Kind:
    """A stage kind. `version` rises when its results change for equal fields and inputs."""

    name: str
    view: type
    resources: str
    """The field of Cluster that says what it asks for."""
    version: int = 1
    sharded: bool = False

    @property
    def module(self) -> str:
        return f"qup.stages.{self.name}"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("problems", views.ProblemsView, "problems"),
        Kind("student", views.StudentView, "student"),
        Kind("reward_model", views.RewardModelView, "reward_model"),
        Kind("rollouts", views.RolloutsView, "rollouts", sharded=True),
        Kind("solvable", views.SolvableView, "solvable"),
        Kind("candidates", views.CandidatesView, "streams", version=2, sharded=True),
        Kind("accept", views.AcceptView, "streams"),
        Kind("aligned", views.AlignedView, "streams"),
        Kind("stream", views.StreamView, "streams"),
        Kind("reward", views.RewardView, "reward", sharded=True),
        Kind("perplexity", views.PerplexityView, "perplexity", version=2, sharded=True),
        Kind("retention", views.RetentionView, "retention", version=2),
        Kind("ranking", views.RankingView, "retention"),
        Kind("train", views.TrainView, "train"),
        Kind("evaluate", views.EvaluateView, "evaluate", sharded=True),
    )
}


def resources(kind: str, view: object, cluster: Cluster) -> Resources:
    """What one stage asks for; candidates that call an Oracle hold no GPU and wait on an API."""
    if isinstance(view, views.CandidatesView) and view.oracle.backend != "none":
        return cluster.oracle
    found = getattr(cluster, KINDS[kind].resources)
    assert isinstance(found, Resources)
    return found
