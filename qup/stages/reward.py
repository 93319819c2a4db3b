"""Scores of traces by one reward model. Sharded over traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from qup.config.views import RewardView
from qup.pipeline.context import Context
from qup.records import SCORES
from qup.scoring.traces import Plan, make_plan, merged
from qup.serving.facts import note, noted
from qup.store import Artifact, model_of
from qup.store.rows import TableWriter

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
    with _scorer(view, inputs, ctx) as score:
        for index, table in planned.read(ctx, indices):
            scores, tokens, fits = score(table["question"].to_pylist(), table["text"].to_pylist())
            columns = {"score": scores, "n_tokens": tokens, "fits": fits}
            keys = {name: table[name] for name in ("pool", "problem_id", "candidate")}
            scored = pa.table({**keys, **{name: pa.array(values, SCORES.field(name).type) for name, values in columns.items()}})
            ctx.save_shard(index, scored.cast(SCORES))


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
        **noted(ctx.work),
    }


def _plan(view: RewardView, inputs: Inputs, ctx: Context) -> Plan:
    return make_plan(inputs, ctx, "scores", view.reward.shard_size)


@contextmanager
def _scorer(view: RewardView, inputs: Inputs, ctx: Context) -> Iterator[Scorer]:
    """The reward model, ready; whatever it started is gone afterwards."""
    if view.reward.lab is not None and view.reward.lab.kind == "steps":
        yield _steps
    else:
        yield from _model_scorer(view, inputs, ctx)


def _steps(questions: list[str], traces: list[str]) -> tuple[list[float], list[int], list[bool]]:
    """The lab's stated rule; its tokens are words."""
    from qup.lab.reward import step_score

    pairs = list(zip(questions, traces, strict=True))
    return [step_score(*pair) for pair in pairs], [len(" ".join(pair).split()) for pair in pairs], [True] * len(pairs)


def _model_scorer(view: RewardView, inputs: Inputs, ctx: Context) -> Iterator[Scorer]:
    from qup.scoring.formats import FORMATS
    from qup.scoring.rewards import load_reward_tokenizer

    directory = model_of(inputs, "reward_model")
    encode = FORMATS[view.reward.format].encode
    tokenizer = load_reward_tokenizer(view.reward, view.name, directory)
    with _model(view, directory, ctx) as (model, limit):

        def score(questions: list[str], traces: list[str]) -> tuple[list[float], list[int], list[bool]]:
            ids = [encode(tokenizer, question, trace) for question, trace in zip(questions, traces, strict=True)]
            fits = [len(sequence) <= limit for sequence in ids]
            scored = iter(model.score([sequence for sequence, fit in zip(ids, fits, strict=True) if fit]))
            return [next(scored) if fit else float("nan") for fit in fits], [len(sequence) for sequence in ids], fits

        yield score


@contextmanager
def _model(view: RewardView, directory: Path | None, ctx: Context) -> Iterator[tuple[RewardModel | PoolingServer, int]]:
    """What scores token ids, and the most of them it takes: a model in this process, or a pooling server."""
    if view.reward.backend == "vllm":
        from qup.scoring.pooling import PoolingServer, reward_flags
        from qup.serving.command import count_gpus
        from qup.serving.server import Server

        if view.reward.base_url:
            found = PoolingServer(view.reward.base_url, view.reward, view.name, stopping=ctx.stopping)
            note(ctx.work, found.facts)
            yield found, found.limit
            return
        place, flags = reward_flags(view.reward, view.name, directory, count_gpus(ctx.resources.gpus))
        with Server(view.vllm, "reward", place, flags, work=ctx.work, stopping=ctx.stopping, log=ctx.log) as server:
            found = PoolingServer(server, view.reward, view.name, stopping=ctx.stopping)
            note(ctx.work, found.facts)
            yield found, found.limit
        return
    import torch

    from qup.scoring.rewards import RewardModel

    torch.set_num_threads(view.reward.threads)
    model = RewardModel(view.reward, view.name, directory)
    yield model, model.limit
