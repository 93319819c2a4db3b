"""Samples with their verdicts: what rollouts and evaluation have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qup.answers import extract
from qup.answers.verifier import Verifier
from qup.context import Context
from qup.generation.backends import Backend, facts_json
from qup.generation.records import Sample

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


def draw_and_judge(
    backend: Backend,
    verifier: Verifier,
    ids: Sequence[str],
    questions: Sequence[str],
    golds: Sequence[str],
    modes: Sequence[str],
    ctx: Context,
) -> list[Judged]:
    """All samples of some problems, in order of problem and sample."""
    requests = [backend.request(identity, question) for identity, question in zip(ids, questions, strict=True)]
    drawn = dict(backend.generate(requests, ctx.stopping))
    flat = [(problem, number, sample, backend.text(sample)) for problem in range(len(ids)) for number, sample in enumerate(drawn[problem])]
    extracted = [extract(text, modes[problem]) for problem, _, _, text in flat]
    verdicts = verifier.verdicts([(answer, golds[problem]) for answer, (problem, _, _, _) in zip(extracted, flat, strict=True)])
    return [
        Judged(problem, number, text, sample, answer, verdict)
        for (problem, number, sample, text), answer, verdict in zip(flat, extracted, verdicts, strict=True)
    ]


def keep_facts(backend: Backend, ctx: Context) -> None:
    """Writes the backend's facts beside the shards, once."""
    path = ctx.work / FACTS
    if not path.exists():
        beside = path.with_suffix(".tmp")
        beside.write_text(facts_json(backend))
        beside.replace(path)


def read_facts(work: Path) -> dict[str, object]:
    """The facts kept by the first worker."""
    import json

    found = json.loads((work / FACTS).read_text())
    assert isinstance(found, dict)
    return found
