"""All token statistics of traces under the untuned student, in one pass: NLL, ranks, Brier scores, activations, steps. Sharded over traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.config.views import PerplexityView
from qup.measures.registry import STEPS
from qup.measures.steps import first_tokens
from qup.pipeline.context import Context
from qup.records import STATISTICS, TOTALS, TRACES
from qup.scoring.summary import Summary, totals
from qup.scoring.traces import Plan, make_plan, merged, refuse_infinite
from qup.store import Artifact, model_of, save_table
from qup.store.rows import TableWriter

Inputs = Mapping[str, Artifact]


def plan(view: PerplexityView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards; none where all traces' scores are gathered from their pools'."""
    return _plan(view, inputs, ctx).shards


def shard(view: PerplexityView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Scores some shards."""
    import torch

    from qup.models import encode_prompt, encode_response, load_model, question_span, response_ends, train_stop_id
    from qup.scoring.nll import Encoded, NllScorer

    planned = _plan(view, inputs, ctx)
    torch.set_num_threads(view.model.threads)
    settings = view.perplexity
    tokenizer = _tokenizer(view, inputs)
    stop_id = train_stop_id(tokenizer, view.model.template)
    model = load_model(view.model, model_of(inputs))
    scorer = NllScorer(
        model, batch_tokens=settings.batch_tokens, rank_cap=settings.rank_cap, top=settings.brier_top, activation=settings.activation
    )
    for index, table in planned.read(ctx, indices):
        prompts = {}
        for question in pc.unique(table["question"]).to_pylist():
            ids = tuple(encode_prompt(tokenizer, view.model.template, question))
            prompts[question] = ids, question_span(tokenizer, view.model.template, question, ids)
        texts = table["text"].to_pylist()
        encoded = []
        for question, text in zip(table["question"].to_pylist(), texts, strict=True):
            ids, span = prompts[question]
            encoded.append(Encoded(ids, tuple(encode_response(tokenizer, text, stop_id)), span))
        scored = scorer.score(encoded)
        refuse_infinite("the NLL", np.array([np.isfinite(one.nll_T).all() for one in scored]), table)
        ends = [response_ends(tokenizer, text) for text in texts]
        columns: dict[str, Any] = {name: table[name] for name in ("pool", "problem_id", "candidate")}
        columns["n_prompt"] = [len(trace.prompt_ids) for trace in encoded]
        columns["n_chars"] = pc.utf8_length(table["text"])
        columns["token_ids"] = [trace.response_ids for trace in encoded]
        columns["nll_T"] = [trace.nll_T for trace in scored]
        columns["rank_T"] = [trace.rank_T for trace in scored]
        columns["brier"] = [float(trace.brier_T[:-1].sum(dtype=float)) for trace in scored]
        columns["brier_top"] = [float(trace.brier_top_T[:-1].sum(dtype=float)) for trace in scored]
        for name in ("question_nll", "question_tokens", "aa", "aq"):
            columns[name] = [getattr(trace, name) for trace in scored]
        for steps in STEPS:
            columns[steps] = [first_tokens(text, end_T, steps) for text, end_T in zip(texts, ends, strict=True)]
        schema = pa.unify_schemas([TRACES, STATISTICS])
        ctx.save_shard(index, pa.table([_column(columns[field.name], field.type) for field in schema], schema=schema))


def merge(view: PerplexityView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `traces`, `totals`, `statistics` and `tokens`; returns the set's figures."""
    from qup.models import context_length, load_configs, train_stop_id
    from qup.text.templates import template_hash

    planned = _plan(view, inputs, ctx)
    tokenizer = _tokenizer(view, inputs)

    def decode(token: int) -> str:
        return str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    config, _ = load_configs(view.model, model_of(inputs))
    summary = Summary(view.perplexity.truncate_at, context_length(view.model, config))
    with (
        TableWriter(ctx.out, "traces", TRACES) as traces,
        TableWriter(ctx.out, "totals", TOTALS) as sums,
        TableWriter(ctx.out, "statistics", STATISTICS) as statistics,
    ):
        for piece in merged(planned, inputs, ctx, {"traces": TRACES, "statistics": STATISTICS}):
            statistics.write(piece["statistics"])
            traces.write(piece["traces"])
            sums.write(totals(piece["traces"]))
            summary.add(piece["traces"])
    save_table(ctx.out, "tokens", summary.tokens(decode))
    return summary.metrics(decode) | {
        "n_gathered": len(planned.traces) - len(planned.todo),
        "template_hash": template_hash(tokenizer, view.model.template),
        "stop_id": train_stop_id(tokenizer, view.model.template),
    }


def _plan(view: PerplexityView, inputs: Inputs, ctx: Context) -> Plan:
    return make_plan(inputs, ctx, "traces", view.perplexity.shard_size)


def _tokenizer(view: PerplexityView, inputs: Inputs) -> Any:
    from qup.models import load_tokenizer

    return load_tokenizer(view.model, model_of(inputs))


def _column(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.ChunkedArray):
        return values.cast(kind)
    if pa.types.is_list(kind):
        lengths = np.fromiter((len(value) for value in values), np.int64, len(values))
        flat = np.concatenate([np.asarray(value) for value in values]) if lengths.sum() else np.zeros(0)
        offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array(flat, kind.value_type, from_pandas=False))
    return pa.array(values, kind)
