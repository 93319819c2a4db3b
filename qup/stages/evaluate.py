"""Utility: benchmarks solved by the student, untuned or fine-tuned. Sharded over problems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qup.config.views import EvaluateView
from qup.errors import InputError
from qup.pipeline.context import Context
from qup.records import RESPONSES
from qup.store import Artifact
from qup.store.rows import TableWriter

Inputs = Mapping[str, Artifact]


@dataclass(frozen=True)
class Item:
    """One problem of one benchmark."""

    benchmark: str
    problem_id: str
    question: str
    gold: str
    extraction: str
    dev: bool


def plan(view: EvaluateView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards of `evaluation.sampling.shard_size` problems, over all benchmarks in their order."""
    return -(-len(items(view)) // view.evaluation.sampling.shard_size)


def items(view: EvaluateView) -> list[Item]:
    """All benchmarks' problems; the first so many of a benchmark named in `evaluation.dev` are kept apart."""
    from qup.data.sets import load_benchmark

    for name in view.evaluation.dev:
        if name not in view.evaluation.benchmarks:
            raise InputError(f"evaluation.dev.{name}: there is no such benchmark; there are {', '.join(view.evaluation.benchmarks)}")
    found = []
    for name, benchmark in view.evaluation.benchmarks.items():
        apart = view.evaluation.dev.get(name, 0)
        for row, problem in enumerate(load_benchmark(name, benchmark).to_pylist()):
            found.append(Item(name, problem["problem_id"], problem["question"], problem["answer"], benchmark.extraction, row < apart))
    if not found:
        raise InputError("evaluation.benchmarks is empty: name at least one benchmark")
    return found


def shard(view: EvaluateView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Draws and verifies some shards. Raises InputError where prompts do not fit the context, before anything is drawn."""
    from qup.answers import Verifier
    from qup.generation import Student, open_backend
    from qup.generation.responses import Problem, respond, with_facts

    sampling, size = view.evaluation.sampling, view.evaluation.sampling.shard_size
    everything = items(view)
    problems = [Problem(f"{item.benchmark}/{item.problem_id}", item.question, item.gold, item.extraction) for item in everything]
    student = Student.open(view.model, weights(view, inputs))
    student.check_prompts([problem.name for problem in problems], [problem.question for problem in problems], sampling.min_new_tokens)
    finished = sum(len(problems[index * size : (index + 1) * size]) for index in range(-(-len(problems) // size)) if ctx.has_shard(index))
    with open_backend(student, sampling, ctx, view.vllm) as backend, Verifier(view.evaluation.timeout_s) as verifier:
        for index in sorted(indices):
            ctx.check()
            part = slice(index * size, (index + 1) * size)
            before = finished
            answered = respond(
                backend,
                student,
                sampling,
                problems[part],
                verifier,
                lambda done, before=before: ctx.progress(before + done, len(problems), "problems"),  # type: ignore[misc]
            )
            ctx.save_shard(index, with_facts(_rows(everything[part], answered.responses_PS), answered.facts))
            finished += len(problems[part])


def merge(view: EvaluateView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `responses` and `results.json`; returns accuracies in percent.

    `total` is the mean over benchmarks, `total_pooled` over problems; problems kept apart count in `dev` alone.
    """
    from qup.generation.responses import Facts, sampling_facts, say_clamped
    from qup.generation.utility import figures, harness_results, totals
    from qup.tracking import stage_tracker

    facts = Facts()
    kept = [name for name in RESPONSES.names if name != "text"]
    parts = []
    with TableWriter(ctx.out, "responses", RESPONSES) as writer:
        for index in range(plan(view, inputs, ctx)):
            table = ctx.load_shard(index)
            writer.write(table)
            facts.add(table)
            parts.append(table.select(kept).replace_schema_metadata(None))
    say_clamped(ctx, facts.clamped, view.evaluation.sampling, "evaluation.sampling")
    everything = pa.concat_tables(parts)
    found: dict[bool, dict[str, dict[str, Any]]] = {False: {}, True: {}}
    for name in view.evaluation.benchmarks:
        for dev in (False, True):
            mine = everything.filter(pc.and_(pc.equal(everything["benchmark"], name), pc.equal(everything["dev"], dev)))
            if mine.num_rows:
                found[dev][name] = figures(mine)
    total, pooled = totals(found[False])
    sampling = sampling_facts(view.evaluation.sampling)
    config = {"model": view.labels.get("model", view.model.name), "model_args": view.model.path, "gen_kwargs": sampling, **facts.same}
    metrics = {
        "benchmarks": found[False],
        "total": total,
        "total_pooled": pooled,
        "dev": found[True],
        "dev_total": totals(found[True])[0],
        "n_responses": everything.num_rows,
        "tokens": int(pc.sum(everything["n_tokens"]).as_py()),
        "clamped": facts.clamped,
        **facts.same,
        "sampling": sampling,
    }
    text = json.dumps(harness_results(found[False], found[True], config), indent=1, sort_keys=True)
    (ctx.out / "results.json").write_text(text + "\n")
    with stage_tracker("evaluate", view, ctx) as tracker:
        tracker.summary(metrics)
    return metrics


def weights(view: EvaluateView, inputs: Inputs) -> Path | None:
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
            "extracted": response.extracted,
            "correct": response.correct,
            "verdict": response.verdict,
        }
        for problem, responses in zip(problems, responses_PS, strict=True)
        for number, response in enumerate(responses)
    ]
    return pa.table({field.name: pa.array([row[field.name] for row in rows], field.type) for field in RESPONSES}, schema=RESPONSES)
