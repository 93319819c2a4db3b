"""Measures with a pass of their own: local log-probability, and projected gradients. Sharded over traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.config.views import MeasureView
from qup.draws import uniform
from qup.measures import grace, lalp
from qup.measures.steps import first_tokens
from qup.pipeline.context import Context
from qup.records import MEASURED
from qup.scoring.nll import Encoded
from qup.scoring.traces import Plan, make_plan, merged, refuse_infinite
from qup.store import Artifact, model_of
from qup.store.rows import TableWriter

Inputs = Mapping[str, Artifact]


def plan(view: MeasureView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards; none where all traces' values are gathered from their pools'."""
    return _plan(view, inputs, ctx).shards


def shard(view: MeasureView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Measures some shards."""
    import torch

    from qup.models import encode_prompt, encode_response, load_model, load_tokenizer, response_ends, train_stop_id

    planned = _plan(view, inputs, ctx)
    torch.set_num_threads(view.model.threads)
    directory = model_of(inputs)
    tokenizer = load_tokenizer(view.model, directory)
    stop_id = train_stop_id(tokenizer, view.model.template)
    values = (_windows if view.measure.kind == "lalp" else _gradients)(view, load_model(view.model, directory))
    for index, table in planned.read(ctx, indices):
        questions, texts = table["question"].to_pylist(), table["text"].to_pylist()
        prompts = {question: tuple(encode_prompt(tokenizer, view.model.template, question)) for question in set(questions)}
        encoded = [
            Encoded(prompts[question], tuple(encode_response(tokenizer, text, stop_id)))
            for question, text in zip(questions, texts, strict=True)
        ]
        firsts = [first_tokens(text, response_ends(tokenizer, text), view.measure.steps) for text in texts]
        value, gradient = values(encoded, firsts, ctx)
        told = [np.isfinite(one).all() for one in (gradient if view.measure.kind == "grace" else value)]
        refuse_infinite(f"measure {view.measure.kind}", np.array(told) | (np.array([len(one.response_ids) for one in encoded]) == 1), table)
        columns = {name: table[name] for name in ("pool", "problem_id", "candidate")}
        ctx.save_shard(
            index, pa.table({**columns, "value": value, "gradient": pa.array(gradient, MEASURED.field("gradient").type)}).cast(MEASURED)
        )


def merge(view: MeasureView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `measured`; returns the set's number by this measure."""
    planned = _plan(view, inputs, ctx)
    values, gradients, problems = [], [], []
    with TableWriter(ctx.out, "measured", MEASURED) as writer:
        for piece in merged(planned, inputs, ctx, {"measured": MEASURED}):
            table = piece["measured"]
            writer.write(table)
            values.append(np.asarray(table["value"]))
            if view.measure.kind == "grace":
                sound = table.filter(pc.is_finite(pc.list_element(table["gradient"], 0)))
                problems.append(sound["problem_id"].combine_chunks())
                gradients.append(np.asarray(pc.list_flatten(sound["gradient"])).reshape(-1, view.measure.dimensions))
    value = np.concatenate(values) if values else np.zeros(0)
    found: float | None = float(np.nanmean(value)) if np.isfinite(value).any() else None
    if view.measure.kind == "grace":
        owner = np.asarray(pa.concat_arrays(problems).dictionary_encode().indices)
        found = grace.score(np.concatenate(gradients), owner, view.measure.splits, view.measure.seed)
    missing = len(planned.traces) - (sum(map(len, problems)) if view.measure.kind == "grace" else int(np.isfinite(value).sum()))
    return {"measure": view.measure.kind, "value": found, "n": len(planned.traces), "n_without": missing}


Values = Callable[[Sequence[Encoded], Sequence[np.ndarray], Context], tuple[list[float], list[np.ndarray]]]


def _windows(view: MeasureView, model: Any) -> Values:
    from qup.scoring.windows import WindowScorer

    scorer = WindowScorer(model, batch_tokens=view.perplexity.batch_tokens)

    def values(encoded: Sequence[Encoded], firsts: Sequence[np.ndarray], ctx: Context) -> tuple[list[float], list[np.ndarray]]:
        scored = scorer.score(encoded, firsts, view.measure.window)
        return [lalp.value(steps) for steps in scored], [np.zeros(0, np.float32)] * len(encoded)

    return values


def _gradients(view: MeasureView, model: Any) -> Values:
    from qup.scoring.gradients import GradientScorer

    scorer = GradientScorer(model, dimensions=view.measure.dimensions, seed=view.measure.seed)

    def values(encoded: Sequence[Encoded], firsts: Sequence[np.ndarray], ctx: Context) -> tuple[list[float], list[np.ndarray]]:
        found = []
        for trace in encoded:
            ctx.check()
            found.append(scorer.gradient(trace))
        return [float("nan")] * len(encoded), found

    return values


def _plan(view: MeasureView, inputs: Inputs, ctx: Context) -> Plan:
    return make_plan(inputs, ctx, "measured", view.perplexity.shard_size, lambda ids: _sampled(view, ids))


def _sampled(view: MeasureView, ids: pa.ChunkedArray) -> np.ndarray:
    """Marks the traces that are measured: all, but for grace those of a sample of problems, the same for equal problems."""
    if view.measure.kind != "grace":
        return np.ones(len(ids), bool)
    every = sorted(pc.unique(ids).to_pylist(), key=lambda name: uniform(view.measure.seed, "grace", name))
    return np.asarray(pc.is_in(ids, pa.array(every[: view.measure.problems], pa.string())))
