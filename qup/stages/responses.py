"""Responses of the student, untuned or fine-tuned, to the benchmarks, as drawn. Sharded over problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qup.config.views import ResponsesView
from qup.data.benchmarks import Item, items
from qup.pipeline.context import Context
from qup.records import RESPONSES
from qup.store import Artifact, model_of
from qup.store.rows import TableWriter

Inputs = Mapping[str, Artifact]


def plan(view: ResponsesView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards of `evaluation.sampling.shard` problems, over all benchmarks in their order."""
    return -(-len(items(view.evaluation)) // view.evaluation.sampling.shard)


def shard(view: ResponsesView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Draws some shards. Raises InputError where prompts do not fit the context, before anything is drawn."""
    from qup.generation import Student, open_backend
    from qup.generation.responses import Problem, draw_shards

    sampling = view.evaluation.sampling
    asked = {f"{item.benchmark}/{item.problem_id}": item for item in items(view.evaluation)}
    problems = [Problem(name, item.question) for name, item in asked.items()]
    student = Student.open(view.model, weights(view, inputs))
    student.check_prompts([problem.name for problem in problems], [problem.question for problem in problems], sampling.min_new_tokens)
    with open_backend(student, sampling, ctx, view.vllm) as backend:
        draw_shards(backend, student, sampling, ctx, indices, problems, partial(_rows, asked))


def merge(view: ResponsesView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `responses`; returns counts and what the draws depended on."""
    from qup.generation.responses import Facts, sampling_facts, say_clamped

    facts, counts = Facts(), Counter[str]()
    with TableWriter(ctx.out, "responses", RESPONSES) as writer:
        for index in range(plan(view, inputs, ctx)):
            table = ctx.load_shard(index)
            writer.write(table)
            facts.add(table)
            cut = pc.sum(pc.equal(table["finish"], "length")).as_py() or 0
            counts.update(n_responses=table.num_rows, tokens=pc.sum(table["n_tokens"]).as_py() or 0, truncated=cut)
    say_clamped(ctx, facts.clamped, view.evaluation.sampling, "evaluation.sampling")
    return {**counts, "clamped": facts.clamped, **facts.same, "sampling": sampling_facts(view.evaluation.sampling)}


def weights(view: ResponsesView, inputs: Inputs) -> Path | None:
    """The evaluated weights: of the training (at its end, or as kept after a share), of the lab's student, or None: by path."""
    if "train" in inputs:
        return inputs["train"].directory("model" if view.at == 1 else f"model-{view.at:g}")
    return model_of(inputs)


def _rows(asked: Mapping[str, Item], problems: Sequence[Any], responses_PS: Sequence[Sequence[Any]]) -> pa.Table:
    rows = [
        {
            "benchmark": asked[problem.name].benchmark,
            "problem_id": asked[problem.name].problem_id,
            "dev": asked[problem.name].dev,
            "sample": number,
            "text": response.text,
            "n_tokens": len(response.sample.token_ids),
            "finish": response.sample.finish,
        }
        for problem, responses in zip(problems, responses_PS, strict=True)
        for number, response in enumerate(responses)
    ]
    return pa.Table.from_pylist(rows, schema=RESPONSES)
