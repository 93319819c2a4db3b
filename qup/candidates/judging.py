"""What the judge's two stages share: which problems are judged, against what, and how the judge's words are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from qup.candidates.problems import kept_rollouts
from qup.config.views import RankingView, RetentionView
from qup.draws import uniform
from qup.oracle import LEDGER, Answer, Ask, retrying, stage_oracle
from qup.pipeline.context import Context
from qup.serving.facts import noted
from qup.store import Artifact
from qup.store.rows import owners
from qup.text.prompts import Prompt

T = TypeVar("T")

ASPECTS = ("definitions", "equations", "assumptions", "trial_steps")
OVERALL = "overall"
RETRIES = 2
"""Further attempts where the judge's words can't be read."""


@dataclass(frozen=True)
class Judged:
    """The sampled problems in the problem set's order. Axis P."""

    ids: list[str]
    questions: list[str]
    natives: list[str]
    """The kept native traces: what is retained or lost."""


def asked(
    view: RankingView | RetentionView, ctx: Context, task: Prompt, problems: Judged, asks: Iterator[Ask], read: Callable[[str], T | None]
) -> tuple[dict[str, T], dict[str, Any]]:
    """What the judge said of each problem, by id, where `read` could read it; and what it took, for the manifest."""

    def said(answer: Answer) -> T | None:
        return read(answer.text) if answer.finish == "stop" else None

    given: dict[str, T] = {}
    answers: list[Answer] = []
    with stage_oracle(view.judge, ctx, view.max_usd, view.vllm) as client:
        for done, (ask, tries) in enumerate(retrying(client, asks, lambda _, answer: said(answer) is not None, RETRIES), 1):
            answers += tries
            if (found := said(tries[-1])) is not None:
                given[ask.id] = found
            ctx.progress(done, len(problems.ids), "problems")
        spent = client.spent.as_dict()
    return given, {
        "n": len(given),
        "n_failed": len(problems.ids) - len(given),
        "usd": float(sum(answer.usd for answer in answers)),
        "input_tokens": sum(answer.input_tokens for answer in answers),
        "output_tokens": sum(answer.output_tokens for answer in answers),
        "prompts": {task.task: task.digest},
        "spent": spent,
        **noted(ctx.work / LEDGER),
    }


def judged(inputs: Mapping[str, Artifact], sample: int, seed: int) -> Judged:
    """A sample of the aligned problems, the same for every arm: the `sample` lowest draws, so a larger one only adds."""
    aligned = inputs["aligned"].table("aligned", ["problem_id"])["problem_id"].to_pylist()
    lowest = sorted(range(len(aligned)), key=lambda p: uniform(seed, "retention", aligned[p]))[:sample]
    ids = pa.chunked_array([pa.array([aligned[p] for p in sorted(lowest)], pa.string())])
    solvable = inputs["solvable"].table("solvable", ["problem_id", "kept"])
    problems = inputs["problems"].table("problems", ["problem_id", "question"])
    picked = solvable.take(
        pa.array(owners(ids, solvable["problem_id"], "is to be judged, and is not in solvable: the stages do not belong together"))
    )
    native = kept_rollouts(inputs["rollouts"], picked, ["problem_id", "text"])
    questions = problems["question"].take(
        pa.array(owners(ids, problems["problem_id"], "is to be judged, and is not in problems: the stages do not belong together"))
    )
    texts = native["text"].take(
        pa.array(owners(ids, native["problem_id"], "is to be judged, and is not in rollouts: the stages do not belong together"))
    )
    return Judged(ids.to_pylist(), questions.to_pylist(), texts.to_pylist())


def stream_texts(stream: Artifact, ids: Sequence[str]) -> list[str]:
    """A stream's traces of some problems."""
    table = stream.table("stream", ["problem_id", "text"])
    wanted = pa.chunked_array([pa.array(list(ids), pa.string())])
    return (
        table["text"]
        .take(pa.array(owners(wanted, table["problem_id"], "is to be judged, and is not in stream: the stages do not belong together")))
        .to_pylist()
    )


def read_ratings(text: str) -> dict[str, float] | None:
    """The four aspects and `overall`, each 1 … 5; None where the judge did not give them. Without an overall rating, the aspects' mean."""
    given = _object(text, (*ASPECTS, OVERALL))
    ratings = {name: _number(given.get(name)) for name in (*ASPECTS, OVERALL)}
    aspects = [ratings[name] for name in ASPECTS]
    if any(value is None for value in aspects):
        return None
    if ratings[OVERALL] is None:
        ratings[OVERALL] = float(np.mean([value for value in aspects if value is not None]))
    return {name: value for name, value in ratings.items() if value is not None}


def read_ranking(text: str, labels: Sequence[str]) -> list[str] | None:
    """The labels from most to least kept; None where they are not all there, each once."""
    given = _object(text, ("ranking",)).get("ranking")
    if isinstance(given, str):
        given = re.split(r"[\s,>]+", given.strip())
    if not isinstance(given, list):
        return None
    named = [str(label).strip().upper() for label in given]
    return named if sorted(named) == sorted(labels) else None


def _object(text: str, names: Sequence[str]) -> dict[str, Any]:
    """The last JSON object in a text that has one of the names; else what looks like such fields."""
    for match in reversed(list(re.finditer(r"\{[^{}]*\}", text))):
        try:
            found = json.loads(match[0])
        except ValueError:
            continue
        if any(name in found for name in names):
            return found
    fields = re.findall(rf"[\"'*]*({'|'.join(names)})[\"'*]*\s*[:=]\s*[*\"']*(\[[^\]]*\]|[0-9.]+)", text, re.IGNORECASE)
    return {name.lower(): re.findall(r"[A-Z]+", value) if value.startswith("[") else value for name, value in fields}


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if 1 <= number <= 5 else None
