"""Stage: trains the lab's outcome reward model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qup.config.views import RewardModelView
from qup.lab.reward import train_outcome_model
from qup.lab.student import save_model
from qup.pipeline.context import Context
from qup.store import Artifact


def run(view: RewardModelView, inputs: Mapping[str, Artifact], ctx: Context) -> dict[str, Any]:
    """Writes the directory `model`."""
    model, metrics = train_outcome_model(view.lab, ctx.work, ctx.progress, ctx.check)
    save_model(model, ctx.out / "model")
    return metrics
