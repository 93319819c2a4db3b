"""Sampled responses: what rollouts and the evaluation's responses have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from qup.config.schema import Sampling
from qup.errors import InputError
from qup.generation.backends import Backend
from qup.generation.records import Sample, clamp
from qup.generation.student import Student
from qup.pipeline.context import Context

FACTS = b"qup.generation"


@dataclass(frozen=True)
class Problem:
    """A problem to be solved; `name` tells it from all others of the stage."""

    name: str
    question: str


@dataclass(frozen=True)
class Response:
    """One sampled response."""

    sample: Sample
    text: str


@dataclass(frozen=True)
class Answered:
    """The responses of some problems, in their order."""

    responses_PS: list[list[Response]]
    facts: dict[str, Any]
    """Counts that add up over shards, by name, and under `same` what must agree between them."""


def respond(
    backend: Backend,
    student: Student,
    sampling: Sampling,
    problems: Sequence[Problem],
    solved: Callable[[int], None] = lambda done: None,
) -> Answered:
    """Draws `sampling.n` responses to each problem; `solved` is told how many problems are done."""
    requests = [student.request(problem.name, problem.question, sampling.n) for problem in problems]
    clamped = clamp(requests, student.context, sampling.max_new_tokens, sampling.min_new_tokens)
    samples: dict[int, list[Sample]] = {}
    for index, found in backend.generate(clamped):
        samples[index] = found
        solved(len(samples))
    responses = [[Response(sample, student.text(sample)) for sample in samples[index]] for index in range(len(problems))]
    facts = {"clamped": clamped.n_clamped, "same": student.facts(sampling) | {"generation": backend.facts}}
    return Answered(responses, facts)


def draw_shards(
    backend: Backend,
    student: Student,
    sampling: Sampling,
    ctx: Context,
    indices: Sequence[int],
    problems: Sequence[Problem],
    rows: Callable[[Sequence[Problem], Sequence[Sequence[Response]]], pa.Table],
    left_out: Collection[str] = (),
) -> None:
    """Draws and saves those shards of `sampling.shard` problems each, as `rows` lays responses out; nothing to problems `left_out`."""
    size = sampling.shard
    shards = [problems[start : start + size] for start in range(0, len(problems), size)]
    finished = sum(len(shard) for index, shard in enumerate(shards) if ctx.has_shard(index))
    for index in sorted(indices):
        ctx.check()
        asked, before = [problem for problem in shards[index] if problem.name not in left_out], finished
        answered = respond(backend, student, sampling, asked, lambda done: ctx.progress(before + done, len(problems), "problems"))  # noqa: B023
        ctx.save_shard(index, with_facts(rows(asked, answered.responses_PS), answered.facts))
        finished += len(shards[index])


def with_facts(table: pa.Table, facts: dict[str, Any]) -> pa.Table:
    """The table with the facts in its schema, so that a shard carries what the merge needs to know."""
    return table.replace_schema_metadata({FACTS: json.dumps(facts, sort_keys=True).encode()})


def facts_of(table: pa.Table) -> dict[str, Any]:
    """What `with_facts` put there."""
    found = json.loads((table.schema.metadata or {})[FACTS])
    assert isinstance(found, dict)
    return found


class Facts:
    """Facts of all shards: counts summed; what must be the same compared."""

    def __init__(self) -> None:
        self.clamped = 0
        self.same: dict[str, Any] = {}

    def add(self, table: pa.Table) -> None:
        """Raises InputError where a shard was drawn with another template, stop ids or context."""
        facts = facts_of(table)
        self.clamped += facts["clamped"]
        mine = dict(facts["same"])
        generation = mine.pop("generation")
        known = dict(self.same)
        known.pop("generation", None)
        if known and known != mine:
            different = ", ".join(name for name in mine if mine[name] != known.get(name))
            raise InputError(
                f"shards of this stage were drawn with different {different}: the student's files changed in between; start anew"
            )
        self.same = self.same or {**mine, "generation": generation}


def say_clamped(ctx: Context, clamped: int, sampling: Sampling, key: str) -> None:
    """Warns where prompts left less of the context than the length limit allows; the manifest has the number."""
    if clamped:
        ctx.log.warning(
            "%d prompts leave less of the context than %s.max_new_tokens=%d: their responses may be only as long as fits",
            clamped,
            key,
            sampling.max_new_tokens,
        )


def sampling_facts(sampling: Sampling) -> dict[str, Any]:
    """The settings of the draws, for the manifest."""
    names = ("n", "temperature", "top_p", "top_k", "min_p", "max_new_tokens", "seed", "backend", "vllm", "rows")
    return {name: getattr(sampling, name) for name in names}
