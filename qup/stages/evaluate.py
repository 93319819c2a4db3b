"""Stage: utility. Avg@k on every benchmark, all responses kept. Sharded over problems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from qup.answers.verifier import Verifier
from qup.config.views import EvaluateView
from qup.context import Context
from qup.data import load_benchmark
from qup.evaluation import results_json, scores
from qup.generation.backends import open_backend
from qup.generation.verified import draw_and_judge, keep_facts, read_facts
from qup.records import RESPONSES
from qup.store import Artifact, save_table

Inputs = Mapping[str, Artifact]


def _problems(view: EvaluateView) -> pa.Table:
    """All benchmarks' problems, one after the other, with the benchmark's name and whether a problem is for development."""
    parts = []
    for name, benchmark in view.evaluation.benchmarks.items():
        table = load_benchmark(name, benchmark).select(["problem_id", "question", "answer"])
        dev = view.evaluation.dev.get(name, 0)
        table = table.append_column("benchmark", pa.array([name] * table.num_rows))
        parts.append(table.append_column("dev", pa.array([row < dev for row in range(table.num_rows)])))
    return pa.concat_tables(parts)


def _weights(view: EvaluateView, inputs: Inputs) -> Path | None:
    if "train" in inputs:
        return inputs["train"].directory("model" if view.at == 1.0 else f"model-{view.at:g}")
    return inputs["student"].directory("model") if "student" in inputs else None


def plan(view: EvaluateView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards."""
    return -(-_problems(view).num_rows // view.evaluation.sampling.shard_size)


def shard(view: EvaluateView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Draws and verifies some shards with one loaded model."""
    problems, sampling = _problems(view), view.evaluation.sampling
    backend = open_backend(view.model, _weights(view, inputs), sampling, ctx.log, ctx.work)
    try:
        keep_facts(backend, ctx)
        with Verifier(view.evaluation.timeout_s) as verifier:
            for done, index in enumerate(indices):
                ctx.check()
                ctx.progress(done * sampling.shard_size * sampling.n, len(indices) * sampling.shard_size * sampling.n, "samples")
                rows = problems.slice(index * sampling.shard_size, sampling.shard_size).to_pydict()
                ids = [f"{name}/{problem}" for name, problem in zip(rows["benchmark"], rows["problem_id"], strict=True)]
                modes = [view.evaluation.benchmarks[name].extraction for name in rows["benchmark"]]
                found = draw_and_judge(backend, verifier, ids, rows["question"], rows["answer"], modes, ctx)
                ctx.save_shard(
                    index,
                    pa.table(
                        {
                            "benchmark": [rows["benchmark"][one.problem] for one in found],
                            "problem_id": [rows["problem_id"][one.problem] for one in found],
                            "dev": [rows["dev"][one.problem] for one in found],
                            "sample": [one.sample for one in found],
                            "text": [one.text for one in found],
                            "n_tokens": [len(one.drawn.token_ids) for one in found],
                            "finish": [one.drawn.finish for one in found],
                            "extracted": [one.extracted for one in found],
                            "correct": [one.correct for one in found],
                            "verdict": [one.verdict for one in found],
                        },
                        schema=RESPONSES,
                    ),
                )
    finally:
        backend.close()


def merge(view: EvaluateView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes the table `responses` and `results.json`."""
    table = pa.concat_tables(ctx.load_shard(index) for index in range(plan(view, inputs, ctx)))
    save_table(ctx.out, "responses", table)
    metrics = {**scores(table), **read_facts(ctx.work)}
    (ctx.out / "results.json").write_text(json.dumps(results_json(metrics, view.model.name), indent=1, sort_keys=True))
    return metrics
