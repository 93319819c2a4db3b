"""Stage: the student's responses to the training problems, verified. Sharded over problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qup.answers.verifier import Verifier
from qup.config.views import RolloutsView
from qup.context import Context
from qup.errors import InputError
from qup.generation.backends import open_backend
from qup.generation.verified import draw_and_judge, keep_facts, read_facts
from qup.records import ROLLOUTS
from qup.store import Artifact, save_table

Inputs = Mapping[str, Artifact]


def plan(view: RolloutsView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards; InputError where there is no problem."""
    rows = int(inputs["problems"].metrics["n"])
    if not rows:
        raise InputError("problems: none is left; see what `problems` excluded in its manifest")
    return -(-rows // view.rollouts.sampling.shard_size)


def shard(view: RolloutsView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Draws and verifies some shards with one loaded model."""
    problems = inputs["problems"].table("problems", ["problem_id", "question", "answer"])
    size, n = view.rollouts.sampling.shard_size, view.rollouts.sampling.n
    directory = inputs["student"].directory("model") if "student" in inputs else None
    backend = open_backend(view.model, directory, view.rollouts.sampling, ctx.log, ctx.work)
    try:
        keep_facts(backend, ctx)
        with Verifier(view.rollouts.timeout_s) as verifier:
            for done, index in enumerate(indices):
                ctx.check()
                ctx.progress(done * size * n, len(indices) * size * n, "samples")
                rows = problems.slice(index * size, size).to_pydict()
                modes = [view.rollouts.extraction] * len(rows["problem_id"])
                found = draw_and_judge(backend, verifier, rows["problem_id"], rows["question"], rows["answer"], modes, ctx)
                ctx.save_shard(
                    index,
                    pa.table(
                        {
                            "problem_id": [rows["problem_id"][one.problem] for one in found],
                            "sample": [one.sample for one in found],
                            "text": [one.text for one in found],
                            "token_ids": [one.drawn.token_ids for one in found],
                            "logprob_T": [one.drawn.logprob_T for one in found],
                            "finish": [one.drawn.finish for one in found],
                            "extracted": [one.extracted for one in found],
                            "correct": [one.correct for one in found],
                            "verdict": [one.verdict for one in found],
                            "eligible": [one.correct and one.drawn.finish == "stop" and bool(one.text.strip()) for one in found],
                        },
                        schema=ROLLOUTS,
                    ),
                )
    finally:
        backend.close()


def merge(view: RolloutsView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes the table `rollouts`."""
    table = pa.concat_tables(ctx.load_shard(index) for index in range(plan(view, inputs, ctx)))
    save_table(ctx.out, "rollouts", table)
    correct, stopped = table["correct"], pc.equal(table["finish"], "stop")
    lengths = pc.list_value_length(table["token_ids"])
    by_problem = table.group_by("problem_id").aggregate([("correct", "sum")])["correct_sum"].to_pylist()
    facts = read_facts(ctx.work)
    limit = min(view.rollouts.sampling.max_new_tokens, int(str(facts["context"])))

    def count(mask: Any) -> int:
        return int(pc.sum(mask).as_py() or 0)

    return {
        "n_problems": len(by_problem),
        "n_samples": table.num_rows,
        "tokens": int(pc.sum(lengths).as_py() or 0),
        "correct": count(correct),
        "accuracy": 100.0 * count(correct) / max(1, table.num_rows),
        "eligible": count(table["eligible"]),
        "correct_cut_off": count(pc.and_(correct, pc.invert(stopped))),
        "truncated": count(pc.invert(stopped)),
        "empty": count(pc.equal(pc.utf8_trim_whitespace(table["text"]), "")),
        "clamped": count(pc.and_(pc.invert(stopped), pc.less(lengths, limit))),
        "no_answer": count(pc.equal(table["verdict"], "no_answer")),
        "timeouts": count(pc.equal(table["verdict"], "timeout")),
        "histogram": [by_problem.count(k) for k in range(view.rollouts.sampling.n + 1)],
        **facts,
    }
