"""Candidates that the student and an Oracle write in turn: the student the manner, the Oracle the reasoning (TESSY, arXiv 2604.14164)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from qup.answers.extraction import extract
from qup.answers.verifier import CORRECT, Verifier
from qup.candidates.table import Part, build
from qup.config.schema import Sampling
from qup.generation.backends import Backend
from qup.generation.records import Request, clamp
from qup.generation.student import Student
from qup.models import decode_response, encode_response
from qup.oracle import Answer, Ask, OracleClient
from qup.text.prompts import Prompt, fill
from qup.text.turns import ORACLE, STUDENT, Boundary

CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""What asks a server to go on with the assistant's message (vLLM, SGLang and others); api.openai.com has nothing of the kind."""
MOST_TURNS = 200
"""Spans of one trace; what is not done by then is cut off."""
STRIDE = 1000
"""Attempt number of a further sample's first draft: sample × this."""


@dataclass
class Draft:
    """One trace on its way."""

    problem_id: str
    candidate: int
    question: str
    gold: str
    attempt: int = 0
    text: str = ""
    turns: list[int] = field(default_factory=list)
    """Ends of the spans written so far, the student's first."""
    finish: str = ""
    verdict: str = ""
    extracted: str = ""
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.verdict in CORRECT

    def add(self, span: str) -> None:
        """A span by whose turn it is."""
        self.text += span
        self.turns.append(len(self.text))

    def restart(self) -> None:
        """The next attempt, from an empty page."""
        self.attempt, self.text, self.turns, self.finish = self.attempt + 1, "", [], ""


@dataclass(frozen=True)
class Pair:
    """Both writers, and everything that drafts have in common."""

    student: Student
    backend: Backend
    sampling: Sampling
    client: OracleClient
    prompt: Prompt
    teacher: str
    boundary: Boundary
    verifier: Verifier
    extraction: str
    retries: int
    span_tokens: int
    check: Callable[[], None]

    def settle(self, drafts: Sequence[Draft]) -> None:
        """Writes every draft, and those that come out wrong again, `retries` times at most."""
        todo = list(drafts)
        for attempt in range(self.retries + 1):
            if attempt:
                for draft in todo:
                    draft.restart()
            self._write(todo)
            self._judge(todo)
            todo = [draft for draft in todo if not draft.done]

    def _write(self, drafts: Sequence[Draft]) -> None:
        for turn in range(MOST_TURNS):
            live = [draft for draft in drafts if not draft.finish]
            if not live:
                return
            self.check()
            if turn % 2 == 0:
                self._student(live, turn)
            else:
                self._oracle(live)
        for draft in drafts:
            draft.finish = draft.finish or "length"

    def _student(self, live: Sequence[Draft], turn: int) -> None:
        """The student goes on with each draft for at most span_tokens tokens; of that the boundary keeps its manner."""
        requests, known = [], []
        for draft in live:
            prompt = self.student.request(draft.problem_id, draft.question, 1)
            written = tuple(encode_response(self.student.tokenizer, draft.text, self.student.train_stop_id))[:-1] if draft.text else ()
            name = f"{draft.problem_id}/{draft.candidate}/{draft.attempt}/{turn}"
            requests.append(Request(name, prompt.prompt_ids + written, 1))
            known.append(written)
        room = [self.student.context - len(request.prompt_ids) for request in requests]
        full = [space < self.span_tokens or len(own) >= self.sampling.max_new_tokens for space, own in zip(room, known, strict=True)]
        for draft, stop in zip(live, full, strict=True):
            draft.finish = "length" if stop else ""
        kept = [index for index, stop in enumerate(full) if not stop]
        if not kept:
            return
        spans: dict[int, tuple[str, str]] = {}
        clamped = clamp([requests[index] for index in kept], self.student.context, self.span_tokens, 1)
        for place, samples in self.backend.generate(clamped):
            index, sample = kept[place], samples[0]
            spans[index] = (self._new(live[index].text, known[index], sample.token_ids), sample.finish)
        order = sorted(spans)
        texts = [spans[index][0] for index in order]
        ends = self.boundary.ends([live[index].text for index in order], texts, STUDENT)
        for index, span, end in zip(order, texts, ends, strict=True):
            live[index].add(span[:end])
            if spans[index][1] == "stop" and end == len(span):
                live[index].finish = "stop"

    def _new(self, before: str, known: Sequence[int], ids: Sequence[int]) -> str:
        """The text that new tokens add: a tokenizer may join them to what stands before by a space of its own."""
        whole = self._decoded([*known, *ids])
        return whole[len(before) :] if whole.startswith(before) else self._decoded(ids)

    def _decoded(self, ids: Sequence[int]) -> str:
        return decode_response(self.student.tokenizer, ids, self.student.stop_ids)

    def _oracle(self, live: Sequence[Draft]) -> None:
        """The Oracle goes on with each draft; of that the boundary keeps its reasoning."""
        named = {f"{draft.problem_id}/{draft.candidate}": draft for draft in live}
        asks = [self._ask(name, draft) for name, draft in named.items()]
        answered: dict[str, Answer] = {ask.id: answer for ask, answer in self.client.ask(asks)}
        spans = []
        for name, draft in named.items():
            answer = answered[name]
            draft.requests += 1
            draft.input_tokens += answer.input_tokens
            draft.output_tokens += answer.output_tokens
            draft.usd += answer.usd
            text = answer.text
            if draft.text and text.startswith(draft.text):
                text = text[len(draft.text) :]
            spans.append(text)
        ends = self.boundary.ends([draft.text for draft in named.values()], spans, ORACLE)
        for (name, draft), span, end in zip(named.items(), spans, ends, strict=True):
            answer = answered[name]
            if answer.finish in ("refused", "error"):
                draft.finish = answer.finish
                continue
            draft.add(span[:end])
            if answer.finish == "stop" and end == len(span):
                draft.finish = "stop"
            elif len(draft.text) == (draft.turns[-3] if len(draft.turns) > 2 else 0):
                draft.finish = "length"  # neither has anything to add

    def _ask(self, name: str, draft: Draft) -> Ask:
        messages = fill(self.prompt, problem=draft.question, extraction=self.extraction)
        if draft.text:
            messages.append({"role": "assistant", "content": draft.text})
        attempt = draft.candidate * STRIDE + draft.attempt
        limit = {"max_tokens": 4 * self.span_tokens}
        return Ask(name, self.prompt.task, messages, attempt, {**limit, **(CONTINUE if draft.text else {})})

    def _judge(self, drafts: Sequence[Draft]) -> None:
        found = [extract(draft.text, self.extraction) for draft in drafts]
        verdicts = self.verifier.verdicts([(answer, draft.gold) for answer, draft in zip(found, drafts, strict=True)])
        for draft, answer, verdict in zip(drafts, found, verdicts, strict=True):
            if draft.finish == "stop":
                draft.verdict = verdict if draft.text.strip() else "empty"
            else:
                draft.verdict = {"length": "cut_off"}.get(draft.finish, draft.finish)
            draft.extracted = answer
            if not draft.done:
                draft.failures.append(draft.verdict)

    def part(self, drafts: Sequence[Draft]) -> Part:
        """Rows in the drafts' order."""
        counts: Counter[str] = Counter()
        for draft in drafts:
            counts.update(f"failures.{kind}" for kind in draft.failures)
        right = [draft.done for draft in drafts]
        names = ("problem_id", "candidate", "text", "turns", "extracted", "verdict", "input_tokens", "output_tokens")
        columns: dict[str, Any] = {name: [getattr(draft, name) for draft in drafts] for name in names}
        columns |= {"teacher": [self.teacher] * len(drafts), "correct": right, "eligible": right}
        columns["attempts"] = [draft.attempt + 1 for draft in drafts]
        columns["status"] = ["ok" if done else "flagged" for done in right]
        own = sum(_length(draft.turns, 0) for draft in drafts if draft.done)
        whole = sum(len(draft.text) for draft in drafts if draft.done)
        told = {"usd": sum(draft.usd for draft in drafts), "student_chars": float(own), "chars": float(whole)}
        return build(columns, {**counts, **told})


def _length(turns: Sequence[int], writer: int) -> int:
    """Characters by the student (0) or the Oracle (1)."""
    starts = [0, *turns[:-1]]
    return sum(end - start for number, (start, end) in enumerate(zip(starts, turns, strict=True)) if number % 2 == writer)
