"""Stage: pretrains a lab student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qup.config.views import StudentView
from qup.lab.student import pretrain, save_model
from qup.pipeline.context import Context
from qup.store import Artifact


def run(view: StudentView, inputs: Mapping[str, Artifact], ctx: Context) -> dict[str, Any]:
    """Writes the directory `model`."""
    model, metrics = pretrain(view.lab, ctx.work, ctx.progress, ctx.check)
    save_model(model, ctx.out / "model")
    return metrics
