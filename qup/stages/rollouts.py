"""The student's own responses to the training problems, as drawn. Sharded over problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qup.config.views import RolloutsView
from qup.pipeline.context import Context
from qup.records import ROLLOUTS
from qup.store import Artifact
from qup.store.rows import TableWriter

Inputs = Mapping[str, Artifact]


def plan(view: RolloutsView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards of `rollouts.sampling.shard` problems."""
    count = inputs["problems"].table("problems", ["problem_id"]).num_rows
    return -(-count // view.sampling.shard)


def shard(view: RolloutsView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Draws some shards. Raises InputError where prompts do not fit the context, before anything is drawn."""
    from qup.generation import Student, open_backend
    from qup.generation.responses import Problem, respond, with_facts

    sampling, size = view.sampling, view.sampling.shard
    table = inputs["problems"].table("problems", ["problem_id", "question"])
    student = Student.open(view.model, _directory(inputs))
    asked = (table["problem_id"].to_pylist(), table["question"].to_pylist(), sampling.min_new_tokens)
    left_out = {name for name, _ in student.without_room(*asked)} if view.too_long == "exclude" else set()
    if view.too_long == "error" or len(left_out) == table.num_rows:
        student.check_prompts(*asked)
    shards = -(-table.num_rows // size)
    others = sum(min(size, table.num_rows - index * size) for index in range(shards) if ctx.has_shard(index))
    mine = 0
    with open_backend(student, sampling, ctx, view.vllm) as backend:
        for index in sorted(indices):
            ctx.check()
            part = table.slice(index * size, size)
            problems = [Problem(row["problem_id"], row["question"]) for row in part.to_pylist() if row["problem_id"] not in left_out]
            before = others + mine
            answered = respond(
                backend,
                student,
                sampling,
                problems,
                lambda done, before=before: ctx.progress(before + done, table.num_rows, "problems"),  # type: ignore[misc]
            )
            ctx.save_shard(index, with_facts(_rows(problems, answered.responses_PS), answered.facts))
            mine += part.num_rows


def merge(view: RolloutsView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `rollouts` shard by shard; returns counts and what the draws depended on."""
    from qup.generation.responses import Facts, sampling_facts, say_clamped

    facts, counts, problems = Facts(), Counter[str](), 0
    with TableWriter(ctx.out, "rollouts", ROLLOUTS) as writer:
        for index in range(plan(view, inputs, ctx)):
            table = ctx.load_shard(index)
            writer.write(table)
            facts.add(table)
            counts.update(_counts(table))
            problems += len(table["problem_id"].unique())
    say_clamped(ctx, facts.clamped, view.sampling, "rollouts.sampling")
    samples = max(counts["n_samples"], 1)
    return {
        **counts,
        "n_problems": problems,
        "n_too_long": inputs["problems"].table("problems", ["problem_id"]).num_rows - problems,
        "mean_tokens": counts["tokens"] / samples,
        "clamped": facts.clamped,
        **facts.same,
        "sampling": sampling_facts(view.sampling),
    }


def _directory(inputs: Inputs) -> Path | None:
    return inputs["student"].directory("model") if "student" in inputs else None


def _rows(problems: Sequence[Any], responses_PS: Sequence[Sequence[Any]]) -> pa.Table:
    rows = [
        {
            "problem_id": problem.name,
            "sample": number,
            "text": response.text,
            "token_ids": response.sample.token_ids,
            "logprob_T": response.sample.logprob_T,
            "finish": response.sample.finish,
        }
        for problem, responses in zip(problems, responses_PS, strict=True)
        for number, response in enumerate(responses)
    ]
    return pa.table({field.name: pa.array([row[field.name] for row in rows], field.type) for field in ROLLOUTS}, schema=ROLLOUTS)


def _counts(table: pa.Table) -> dict[str, int]:
    cut = pc.equal(table["finish"], "length")
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(table["text"])), 0)

    def total(mask: Any) -> int:
        return int(pc.sum(mask).as_py() or 0)

    return {
        "n_samples": table.num_rows,
        "tokens": total(pc.list_value_length(table["token_ids"])),
        "truncated": total(cut),
        "empty": total(empty),
    }
