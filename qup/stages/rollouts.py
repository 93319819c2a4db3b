"""The student's own responses to the training problems, as drawn. Sharded over problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qup.config.views import RolloutsView
from qup.pipeline.context import Context
from qup.records import ROLLOUTS
from qup.store import Artifact, model_of
from qup.store.rows import TableWriter

Inputs = Mapping[str, Artifact]


def plan(view: RolloutsView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards of `rollouts.sampling.shard` problems."""
    count = inputs["problems"].table("problems", ["problem_id"]).num_rows
    return -(-count // view.sampling.shard)


def shard(view: RolloutsView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Draws some shards. Raises InputError where prompts do not fit the context, before anything is drawn."""
    from qup.generation import Student, open_backend
    from qup.generation.responses import Problem, draw_shards

    sampling = view.sampling
    table = inputs["problems"].table("problems", ["problem_id", "question"])
    student = Student.open(view.model, model_of(inputs))
    asked = (table["problem_id"].to_pylist(), table["question"].to_pylist(), sampling.min_new_tokens)
    left_out = {name for name, _ in student.without_room(*asked)} if view.too_long == "exclude" else set()
    if view.too_long == "error" or len(left_out) == table.num_rows:
        student.check_prompts(*asked)
    problems = [Problem(row["problem_id"], row["question"]) for row in table.to_pylist()]
    with open_backend(student, sampling, ctx, view.vllm) as backend:
        draw_shards(backend, student, sampling, ctx, indices, problems, _rows, left_out)


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
    return pa.Table.from_pylist(rows, schema=ROLLOUTS)


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
