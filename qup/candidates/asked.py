"""Candidates that an Oracle writes: asked, checked, verified, asked anew where an answer fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from qup.answers.extraction import extract
from qup.answers.verifier import CORRECT, Verifier
from qup.candidates.table import Part, build
from qup.oracle import USABLE, Answer, Ask, OracleClient, check, retrying
from qup.text.edits import changed_share
from qup.text.prompts import Prompt, fill

CANDIDATE_STRIDE = 1000
"""Attempt number of an Oracle sample's first request: sample × this. More samples or retries ask nothing again."""
SOLUTIONS = ("wrong", "no_answer", "timeout")
"""Failures that are a complete solution all the same; `keep_flagged` may take one into a stream."""


@dataclass
class Job:
    """One candidate that is wanted."""

    problem_id: str
    candidate: int
    question: str
    gold: str
    trace: str | None = None
    """What the Oracle works on; none where it solves from scratch."""
    reference: str | None = None
    """A native trace as style reference."""
    first_attempt: int = 0
    verdict: str = ""
    status: str = "flagged"
    text: str = ""
    extracted: str = ""
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    prose: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.problem_id}/{self.candidate}"

    @property
    def done(self) -> bool:
        return self.verdict in CORRECT


@dataclass(frozen=True)
class Asker:
    """Everything that a shard's jobs have in common."""

    client: OracleClient
    verifier: Verifier
    prompt: Prompt
    extraction: str
    retries: int
    teacher: str
    """Who is asked."""
    tokenize: Callable[[str], Sequence[int]]
    """Token ids of a text under the student, for edit distances."""

    def settle(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Asks until every job is done or out of attempts; gives each as it is settled."""
        named = {job.name: job for job in jobs}

        def accept(ask: Ask, answer: Answer) -> bool:
            self._judge(named[ask.id], answer)
            return named[ask.id].done

        for ask, _ in retrying(self.client, (self._ask(job) for job in jobs), accept, self.retries):
            yield named[ask.id]

    def _ask(self, job: Job) -> Ask:
        messages = fill(self.prompt, problem=job.question, solution=job.trace or "", reference=job.reference, extraction=self.extraction)
        return Ask(job.name, self.prompt.task, messages, job.first_attempt)

    def _judge(self, job: Job, answer: Answer) -> None:
        """Notes an answer: what it cost, what it is, and whether it is right."""
        job.attempts += 1
        job.input_tokens += answer.input_tokens
        job.output_tokens += answer.output_tokens
        job.usd += answer.usd
        status, text = check(answer, question=job.question, trace=job.trace)
        if status not in USABLE:
            self._fail(job, status, text)
            return
        job.prose += status == "prose"
        extracted = extract(text, self.extraction)
        (verdict,) = self.verifier.verdicts([(extracted, job.gold)])
        if verdict in CORRECT:
            job.verdict, job.text, job.extracted = verdict, text, extracted
            job.status = "unchanged" if status == "unchanged" else "ok"
        else:
            self._fail(job, verdict, text, extracted)

    def _fail(self, job: Job, kind: str, text: str, extracted: str = "") -> None:
        """Keeps the last answer that is a solution at all."""
        job.failures.append(kind)
        if kind in SOLUTIONS or job.verdict not in SOLUTIONS:
            job.verdict, job.text, job.extracted = kind, text, extracted

    def part(self, jobs: Sequence[Job]) -> Part:
        """Rows in the jobs' order."""
        counts: Counter[str] = Counter()
        distances = []
        for job in jobs:
            counts.update(f"failures.{kind}" for kind in job.failures)
            counts["prose"] += job.prose
            known = job.trace is not None and job.done
            distances.append(changed_share(self.tokenize(job.trace or ""), self.tokenize(job.text)) if known else float("nan"))
        columns: dict[str, Any] = {
            name: [getattr(job, name) for job in jobs]
            for name in ("problem_id", "candidate", "text", "extracted", "verdict", "status", "attempts", "input_tokens", "output_tokens")
        }
        right = [job.done for job in jobs]
        usd = sum(job.usd for job in jobs)
        return build(
            columns | {"teacher": [self.teacher] * len(jobs), "correct": right, "eligible": right, "edit_distance": distances},
            {**counts, "usd": usd},
        )
