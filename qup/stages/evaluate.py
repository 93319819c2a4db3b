"""Utility: the answers to the benchmarks read and compared with the gold ones, and the accuracies they make."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qup.answers.extraction import extract
from qup.answers.verifier import CORRECT, Verifier
from qup.config.views import EvaluateView
from qup.data.benchmarks import items
from qup.errors import InputError
from qup.pipeline.context import Context
from qup.records import EVALUATED
from qup.store import Artifact, save_table

Inputs = Mapping[str, Artifact]
BATCH = 4096


def run(view: EvaluateView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `verdicts` and `results.json`; returns accuracies in percent, and what the draws depended on.

    `total` is the mean over benchmarks, `total_pooled` over problems; problems kept apart count in `dev` alone.
    """
    from qup.generation.utility import figures, harness_results, totals
    from qup.tracking import stage_tracker

    everything = _judged(view, inputs["responses"], ctx)
    save_table(ctx.out, "verdicts", everything)
    found: dict[bool, dict[str, dict[str, Any]]] = {False: {}, True: {}}
    for name in view.evaluation.benchmarks:
        for dev in (False, True):
            mine = everything.filter(pc.and_(pc.equal(everything["benchmark"], name), pc.equal(everything["dev"], dev)))
            if mine.num_rows:
                found[dev][name] = figures(mine)
    total, pooled = totals(found[False])
    drawn = inputs["responses"].metrics
    metrics = {
        "benchmarks": found[False],
        "total": total,
        "total_pooled": pooled,
        "dev": found[True],
        "dev_total": totals(found[True])[0],
        "verdicts": dict(Counter(everything["verdict"].to_pylist())),
        **drawn,
    }
    settings = {name: drawn[name] for name in drawn if name not in ("n_responses", "tokens", "truncated", "clamped", "sampling")}
    config = {"model": view.labels.get("model", ""), "gen_kwargs": drawn.get("sampling", {}), **settings}
    text = json.dumps(harness_results(found[False], found[True], config), indent=1, sort_keys=True)
    (ctx.out / "results.json").write_text(text + "\n", encoding="utf-8")
    with stage_tracker("evaluate", view, ctx) as tracker:
        tracker.summary(metrics)
    return metrics


def _judged(view: EvaluateView, responses: Artifact, ctx: Context) -> pa.Table:
    table = responses.table("responses")
    known = {(item.benchmark, item.problem_id): item for item in items(view.evaluation)}
    names = list(zip(table["benchmark"].to_pylist(), table["problem_id"].to_pylist(), strict=True))
    strays = [name for name in names if name not in known]
    if strays:
        raise InputError(f"the responses hold {'/'.join(strays[0])}, which is not among the benchmarks' problems")
    extracted = [extract(text, known[name].extraction) for name, text in zip(names, table["text"].to_pylist(), strict=True)]
    pairs = [(answer, known[name].gold) for name, answer in zip(names, extracted, strict=True)]
    verdicts: list[str] = []
    with Verifier(view.evaluation.timeout_s) as verifier:
        for start in range(0, len(pairs), BATCH):
            ctx.check()
            verdicts += verifier.verdicts(pairs[start : start + BATCH])
            ctx.progress(len(verdicts), len(pairs), "responses")
    table = table.drop_columns(["text"])
    made = {"extracted": extracted, "correct": [verdict in CORRECT for verdict in verdicts], "verdict": verdicts}
    for name, values in made.items():
        table = table.append_column(EVALUATED.field(name), pa.array(values, EVALUATED.field(name).type))
    return table.select(EVALUATED.names).cast(EVALUATED)
