"""Fine-tuning of the student on one stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qup.config.views import TrainView
from qup.errors import Interrupted
from qup.pipeline.context import Context
from qup.store import Artifact, model_of
from qup.tracking import stage_tracker
from qup.training.job import Job
from qup.training.launch import train


def run(view: TrainView, inputs: Mapping[str, Artifact], ctx: Context) -> dict[str, Any]:
    """Writes directory `model`, file `steps.jsonl` and, for every share of evaluate_at below 1, directory `model-<share>`.

    Returns counts, token means of the first and last steps, and `timings`. Killed or stopped at any instant it goes on
    from its last checkpoint in ctx.work. Raises Interrupted once a checkpoint holds what was done, InputError for what
    the user can mend, QupError naming the rank where one of several died.
    """
    job = Job(
        view=view,
        stream=inputs["stream"].file("stream.parquet"),
        student=model_of(inputs),
        work=ctx.work,
        out=ctx.out,
        key=ctx.key,
        memory=ctx.resources.mem,
        sources={name: found.key for name, found in inputs.items()},
    )
    tracker = stage_tracker("train", view, ctx, steps=ctx.work / "steps.jsonl")
    try:
        metrics = train(job, ctx)
    except Interrupted:
        # the run goes on under the same id; closing it would leave half a run beside the whole one
        raise
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.summary(metrics)
    tracker.close()
    return metrics
