"""How much of the native trace's content an arm keeps, as a judge rates it (1 … 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from qup.candidates.judging import ASPECTS, OVERALL, Judged, asked, judged, read_ratings, stream_texts
from qup.config.views import RetentionView
from qup.draws import uniform
from qup.oracle import Ask
from qup.pipeline.context import Context
from qup.records import RETENTION
from qup.store import Artifact, save_table
from qup.text.prompts import Prompt, fill, oracle_prompts

TASKS = {"reference": "judge", "symmetric": "judge_symmetric"}
"""The judge's task by `retention.rating`."""


def run(view: RetentionView, inputs: Mapping[str, Artifact], ctx: Context) -> dict[str, Any]:
    """Writes `retention`, one row a sampled problem in order; NaN where the judge gave no rating. Resumes by the stored answers."""
    prompt = oracle_prompts(view.judge)[TASKS[view.retention.rating]]
    pairs = judged(inputs, view.retention.sample, view.seed)
    texts = stream_texts(inputs["stream"], pairs.ids)
    given, took = asked(view, ctx, prompt, pairs, _asks(prompt, pairs, texts, view.seed), read_ratings)
    columns = {name: [given.get(id, {}).get(name, float("nan")) for id in pairs.ids] for name in (OVERALL, *ASPECTS)}
    columns["rating"] = columns.pop(OVERALL)
    save_table(ctx.out, "retention", pa.Table.from_pydict({"problem_id": pairs.ids, **columns}, schema=RETENTION))
    means = {name: float(np.nanmean(columns[name])) if given else None for name in ("rating", *ASPECTS)}
    return {"retention": means.pop("rating"), **means, **took}


def _asks(prompt: Prompt, pairs: Judged, texts: list[str], seed: int) -> Iterator[Ask]:
    """The native trace of each problem as the reference, and the arm's. Without a reference both are named A and B, in an
    order that a draw decides, the same for every arm."""
    for id, question, native, text in zip(pairs.ids, pairs.questions, pairs.natives, texts, strict=True):
        if "reference" in prompt.placeholders:
            messages = fill(prompt, problem=question, solution=text, reference=native)
        else:
            shown = (native, text) if uniform(seed, "order", id) < 0.5 else (text, native)
            messages = fill(prompt, problem=question, solutions=list(zip("AB", shown, strict=True)))
        yield Ask(id, prompt.task, messages)
