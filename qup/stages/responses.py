"""Responses of the student, untuned or fine-tuned, to the benchmarks, as drawn. Sharded over problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qup.config.views import ResponsesView
from qup.data.benchmarks import Item, items
from qup.pipeline.context import Context
from qup.records import RESPONSES
from qup.store import Artifact
from qup.store.rows import TableWriter

Inputs = Mapping[str, Artifact]


def plan(view: ResponsesView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards of `evaluation.sampling.shard` problems, over all benchmarks in their order."""
    return -(-len(items(view.evaluation)) // view.evaluation.sampling.shard)


def shard(view: ResponsesView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Draws some shards. Raises InputError where prompts do not fit the context, before anything is drawn."""
    from qup.generation import Student, open_backend
    from qup.generation.responses import Problem, respond, with_facts

    sampling, size = view.evaluation.sampling, view.evaluation.sampling.shard
    everything = items(view.evaluation)
    problems = [Problem(f"{item.benchmark}/{item.problem_id}", item.question) for item in everything]
    student = Student.open(view.model, weights(view, inputs))
    student.check_prompts([problem.name for problem in problems], [problem.question for problem in problems], sampling.min_new_tokens)
    finished = sum(len(problems[index * size : (index + 1) * size]) for index in range(-(-len(problems) // size)) if ctx.has_shard(index))
    with open_backend(student, sampling, ctx, view.vllm) as backend:
        for index in sorted(indices):
            ctx.check()
            part = slice(index * size, (index + 1) * size)
            before = finished
            answered = respond(
                backend,
                student,
                sampling,
                problems[part],
                lambda done, before=before: ctx.progress(before + done, len(problems), "problems"),  # type: ignore[misc]
            )
            ctx.save_shard(index, with_facts(_rows(everything[part], answered.responses_PS), answered.facts))
            finished += len(problems[part])


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
    return inputs["student"].directory("model") if "student" in inputs else None


def _rows(problems: Sequence[Item], responses_PS: Sequence[Sequence[Any]]) -> pa.Table:
    rows = [
        {
            "benchmark": problem.benchmark,
            "problem_id": problem.problem_id,
            "dev": problem.dev,
            "sample": number,
            "text": response.text,
            "n_tokens": len(response.sample.token_ids),
            "finish": response.sample.finish,
        }
        for problem, responses in zip(problems, responses_PS, strict=True)
        for number, response in enumerate(responses)
    ]
    return pa.table({field.name: pa.array([row[field.name] for row in rows], field.type) for field in RESPONSES}, schema=RESPONSES)
