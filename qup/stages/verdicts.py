"""The answers of rollouts, read and compared with the gold ones: all that is redone after a change of extraction or of the verifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.answers.extraction import extract
from qup.answers.verifier import CORRECT, VERDICTS, Verifier
from qup.config.views import VerdictsView
from qup.pipeline.context import Context
from qup.records import VERDICTS as TABLE
from qup.store import Artifact, rows
from qup.store.rows import TableWriter

Inputs = Mapping[str, Artifact]
SHARD = 2048
"""Problems a shard."""


def plan(view: VerdictsView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards of SHARD problems."""
    return -(-inputs["problems"].table("problems", ["problem_id"]).num_rows // SHARD)


def shard(view: VerdictsView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Reads and compares the answers of some shards. Raises InputError where a rollout is of no problem."""
    problems = inputs["problems"].table("problems", ["problem_id", "answer"])
    drawn = inputs["rollouts"].table("rollouts", ["problem_id"])["problem_id"]
    owner_N = rows.owners(drawn, problems["problem_id"], "has rollouts, and is not among the problems")
    golds = problems["answer"].to_pylist()
    groups = [np.flatnonzero(owner_N // SHARD == index) for index in sorted(indices)]
    columns = ["problem_id", "sample", "text", "finish"]
    with Verifier(view.timeout_s) as verifier:
        for index, group, table in zip(sorted(indices), groups, rows.pieces(inputs["rollouts"], "rollouts", groups, columns), strict=True):
            ctx.check()
            ctx.save_shard(index, _judged(view, table, [golds[owner] for owner in owner_N[group]], verifier))
            ctx.progress(min((index + 1) * SHARD, len(golds)), len(golds), "problems")


def merge(view: VerdictsView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `verdicts`; returns how many there are of each, the accuracy and the histogram of correct-of-n."""
    counts, per_problem = Counter[str](), Counter[str]()
    with TableWriter(ctx.out, "verdicts", TABLE) as writer:
        for index in range(plan(view, inputs, ctx)):
            table = ctx.load_shard(index)
            writer.write(table.select(TABLE.names))
            counts.update(_counts(table))
            per_problem.update(dict(zip(*(column.to_pylist() for column in _correct(table)), strict=True)))
    samples = max(counts["n_samples"], 1)
    most = -(-counts["n_samples"] // max(len(per_problem), 1))
    return {
        **counts,
        "n_problems": len(per_problem),
        "accuracy": 100 * counts["correct"] / samples,
        "correct_of_n": np.bincount(list(per_problem.values()), minlength=most + 1).tolist(),
    }


def _judged(view: VerdictsView, table: pa.Table, golds: Sequence[str], verifier: Verifier) -> pa.Table:
    texts, finishes = table["text"].to_pylist(), table["finish"].to_pylist()
    extracted = [extract(text, view.extraction) for text in texts]
    verdicts = verifier.verdicts(list(zip(extracted, golds, strict=True)))
    correct = [verdict in CORRECT for verdict in verdicts]
    ended = [finish == "stop" or not view.stop_required for finish in finishes]
    eligible = [right and whole and bool(text.strip()) for right, whole, text in zip(correct, ended, texts, strict=True)]
    made = {"extracted": extracted, "correct": correct, "verdict": verdicts, "eligible": eligible}
    for name, values in made.items():
        table = table.append_column(TABLE.field(name), pa.array(values, TABLE.field(name).type))
    return table.drop_columns(["text"])


def _correct(table: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    found = table.group_by("problem_id", use_threads=False).aggregate([("correct", "sum")])
    return found["problem_id"], found["correct_sum"]


def _counts(table: pa.Table) -> dict[str, int]:
    def total(mask: Any) -> int:
        return int(pc.sum(mask).as_py() or 0)

    cut = pc.equal(table["finish"], "length")
    named = {verdict: total(pc.equal(table["verdict"], verdict)) for verdict in VERDICTS}
    return {
        "n_samples": table.num_rows,
        "truncated": total(cut),
        "correct": total(table["correct"]),
        "eligible": total(table["eligible"]),
        "correct_cut_off": total(pc.and_(cut, table["correct"])),
        **{("timeouts" if verdict == "timeout" else verdict): count for verdict, count in named.items()},
    }
