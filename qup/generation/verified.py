"""Samples with their verdicts: what rollouts and evaluation have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qup.answers import extract
from qup.answers.verifier import Verifier
from qup.config.schema import Sampling
from qup.context import Context
from qup.generation.backends import Backend
from qup.generation.records import Sample, clamp
from qup.generation.student import Student

FACTS = "generation.json"


@dataclass(frozen=True)
class Judged:
    """One response and what became of it."""

    problem: int
    sample: int
    text: str
    drawn: Sample
    extracted: str
    verdict: str

    @property
    def correct(self) -> bool:
        return self.verdict in ("equal", "symbolic")


@dataclass(frozen=True)
class Judge:
    """A student at work, and who verifies what it says."""

    student: Student
    backend: Backend
    verifier: Verifier
    sampling: Sampling
    ctx: Context

    def draw(self, ids: Sequence[str], questions: Sequence[str], golds: Sequence[str], modes: Sequence[str]) -> list[Judged]:
        """All samples of some problems, in order of problem and sample."""
        sampling = self.sampling
        requests = [self.student.request(identity, question, sampling.n) for identity, question in zip(ids, questions, strict=True)]
        clamped = clamp(requests, self.student.context, sampling.max_new_tokens, sampling.min_new_tokens)
        if clamped.n_clamped:
            self.ctx.log.warning(
                "%d of %d prompts leave less than max_new_tokens=%d of the context of %d: their responses are clamped",
                clamped.n_clamped,
                len(requests),
                sampling.max_new_tokens,
                self.student.context,
            )
        drawn = dict(self.backend.generate(clamped))
        flat = [
            (problem, number, sample, self.student.text(sample))
            for problem in range(len(ids))
            for number, sample in enumerate(drawn[problem])
        ]
        extracted = [extract(text, modes[problem]) for problem, _, _, text in flat]
        verdicts = self.verifier.verdicts([(answer, golds[problem]) for answer, (problem, _, _, _) in zip(extracted, flat, strict=True)])
        return [
            Judged(problem, number, text, sample, answer, verdict)
            for (problem, number, sample, text), answer, verdict in zip(flat, extracted, verdicts, strict=True)
        ]


def keep_facts(student: Student, backend: Backend, sampling: Sampling, work: Path) -> None:
    """Writes what makes responses comparable beside the shards, once."""
    path = work / FACTS
    settings = {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")}
    if not path.exists():
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps({**student.facts(sampling), **backend.facts, **settings}, sort_keys=True))
        beside.replace(path)


def read_facts(work: Path) -> dict[str, Any]:
    """The facts kept by the first worker."""
    found = json.loads((work / FACTS).read_text())
    assert isinstance(found, dict)
    return found
