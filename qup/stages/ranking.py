"""Which arm keeps most of the native trace's content: a judge orders a problem's arms, blind."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from qup.candidates.judging import Judged, asked, judged, read_ranking, stream_texts
from qup.config.views import RankingView
from qup.draws import uniform
from qup.errors import InputError
from qup.oracle import Ask
from qup.pipeline.context import Context
from qup.records import RANKING
from qup.store import Artifact, save_table
from qup.text.prompts import Prompt, fill, oracle_prompts

TASK = "rank"


def run(view: RankingView, inputs: Mapping[str, Artifact], ctx: Context) -> dict[str, Any]:
    """Writes `ranking`: for each sampled problem that the judge ordered, each arm's rank from 1, the most kept. Resumes by the stored answers."""
    if len(view.arms) > len(string.ascii_uppercase):
        raise InputError(
            f"retention.ranking=true: {len(view.arms)} arms to be ranked, at most {len(string.ascii_uppercase)} can be; set it to false"
        )
    prompt = oracle_prompts(view.judge)[TASK]
    problems = judged(inputs, view.retention.sample, view.seed)
    texts = {arm: stream_texts(inputs[f"stream.{arm}"], problems.ids) for arm in view.arms}
    labels = string.ascii_uppercase[: len(view.arms)]
    asks = _asks(prompt, problems, texts, view.seed)
    orders, took = asked(view, ctx, prompt, problems, asks, lambda text: read_ranking(text, labels))
    ranks: dict[str, dict[str, int]] = {}
    for id, order in orders.items():
        shown = dict(zip(labels, shuffled(view.arms, id, view.seed), strict=True))
        ranks[id] = {shown[label]: rank for rank, label in enumerate(order, 1)}
    rows = [(id, arm, ranks[id][arm]) for id in problems.ids if id in ranks for arm in view.arms]
    save_table(ctx.out, "ranking", pa.Table.from_pylist([dict(zip(RANKING.names, row, strict=True)) for row in rows], schema=RANKING))
    return {"mean_rank": {arm: sum(rank[arm] for rank in ranks.values()) / len(ranks) if ranks else None for arm in view.arms}, **took}


def shuffled(arms: tuple[str, ...], problem_id: str, seed: int) -> list[str]:
    """The arms in the order in which the judge sees them."""
    return sorted(arms, key=lambda arm: uniform(seed, "rank", problem_id, arm))


def _asks(prompt: Prompt, problems: Judged, texts: dict[str, list[str]], seed: int) -> Iterator[Ask]:
    for p, id in enumerate(problems.ids):
        shown = [texts[arm][p] for arm in shuffled(tuple(texts), id, seed)]
        labelled = list(zip(string.ascii_uppercase, shown, strict=False))
        yield Ask(id, TASK, fill(prompt, problem=problems.questions[p], reference=problems.natives[p], solutions=labelled))
