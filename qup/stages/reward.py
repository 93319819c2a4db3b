"""Scores of traces by one reward model. Sharded over traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from qup.config.views import RewardView
from qup.context import Context
from qup.errors import InputError
from qup.records import SCORES
from qup.rows import TableWriter
from qup.scoring.traces import Plan, make_plan, merged
from qup.store import Artifact

if TYPE_CHECKING:
    from qup.scoring.pooling import PoolingServer
    from qup.scoring.rewards import RewardModel

Inputs = Mapping[str, Artifact]
Scorer = Callable[[list[str], list[str]], tuple[list[float], list[int], list[bool]]]
"""Questions and traces → scores (NaN where it does not fit), tokens, whether it fits."""


def plan(view: RewardView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards; none where all traces' scores are gathered from their pools'."""
    return _plan(view, inputs, ctx).shards


def shard(view: RewardView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Scores some shards."""
    planned = _plan(view, inputs, ctx)
    score = _scorer(view, inputs)
    indices = sorted(indices)
    for index, table in zip(indices, planned.traces.read(planned.positions(indices)), strict=True):
        ctx.check()
        scores, tokens, fits = score(table["question"].to_pylist(), table["text"].to_pylist())
        columns = {"score": scores, "n_tokens": tokens, "fits": fits}
        keys = {name: table[name] for name in ("pool", "problem_id", "candidate")}
        shard_table = pa.table({**keys, **{name: pa.array(values, SCORES.field(name).type) for name, values in columns.items()}})
        ctx.save_shard(index, shard_table.cast(SCORES))
        ctx.progress(int(planned.positions([index])[0][-1]) + 1, len(planned.traces), "traces")


def merge(view: RewardView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `scores`; returns the mean over the traces that fit."""
    planned = _plan(view, inputs, ctx)
    total = square = 0.0
    fit = unfit = invalid = 0
    with TableWriter(ctx.out, "scores", SCORES) as writer:
        for piece in merged(planned, inputs, ctx, {"scores": SCORES}):
            table = piece["scores"]
            writer.write(table)
            score, fits = np.asarray(table["score"]), np.asarray(table["fits"])
            sound = fits & np.isfinite(score)
            fit += int(sound.sum())
            unfit += int((~fits).sum())
            invalid += int((fits & ~np.isfinite(score)).sum())
            total += float(score[sound].sum())
            square += float((score[sound] ** 2).sum())
    mean = total / fit if fit else None
    sd = None if mean is None else float(np.sqrt(max(square / fit - mean**2, 0.0)))
    return {
        "n": len(planned.traces),
        "n_fit": fit,
        "n_unfit": unfit,
        "n_invalid": invalid,
        "mean": mean,
        "sd": sd,
        "n_gathered": len(planned.traces) - len(planned.todo),
    }


def _plan(view: RewardView, inputs: Inputs, ctx: Context) -> Plan:
    return make_plan(inputs, ctx, "scores", view.reward.shard_size)


def _scorer(view: RewardView, inputs: Inputs) -> Scorer:
    if view.reward.lab is not None and view.reward.lab.kind == "steps":
        from qup.lab.reward import step_score

        return lambda questions, traces: (
            [step_score(question, trace) for question, trace in zip(questions, traces, strict=True)],
            [len(f"{question} {trace}".split()) for question, trace in zip(questions, traces, strict=True)],
            [True] * len(traces),
        )
    return _model_scorer(view, inputs)


def _model_scorer(view: RewardView, inputs: Inputs) -> Scorer:
    from qup.scoring.formats import format_of

    directory = inputs["reward_model"].directory("model") if "reward_model" in inputs else None
    encode = format_of(view.reward).encode
    tokenizer, model, limit = _opened(view, directory)

    def score(questions: list[str], traces: list[str]) -> tuple[list[float], list[int], list[bool]]:
        ids = [encode(tokenizer, question, trace) for question, trace in zip(questions, traces, strict=True)]
        fits = [len(sequence) <= limit for sequence in ids]
        scored = iter(model.score([sequence for sequence, fit in zip(ids, fits, strict=True) if fit]))
        return [next(scored) if fit else float("nan") for fit in fits], [len(sequence) for sequence in ids], fits

    return score


def _opened(view: RewardView, directory: Path | None) -> tuple[Any, RewardModel | PoolingServer, int]:
    """Tokenizer, scorer, and the most tokens it takes."""
    from qup.scoring.rewards import RewardModel, load_reward_tokenizer

    tokenizer = load_reward_tokenizer(view.reward, view.name, directory)
    if view.reward.backend == "vllm":
        from qup.scoring.pooling import PoolingServer

        if not view.reward.base_url:
            raise InputError(
                f"reward.{view.name}.base_url is empty: the address of a server started with `vllm serve MODEL --runner pooling` is needed"
            )
        return tokenizer, PoolingServer(view.reward.base_url), view.reward.max_length
    import torch

    torch.set_num_threads(view.reward.threads)
    model = RewardModel(view.reward, view.name, directory)
    return tokenizer, model, model.limit
