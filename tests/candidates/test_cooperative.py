"""Traces that two write in turn: who writes what, when it ends, and what is asked of the Oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from qup.answers.verifier import Verifier
from qup.candidates.cooperative import CONTINUE, Draft, Pair
from qup.config.schema import LabOracle, LabProblems, Oracle, Sampling
from qup.draws import choose
from qup.generation.records import Sample
from qup.lab import tokenizer as lab_tokenizer
from qup.lab.oracle import LabOracle as Programmed
from qup.lab.styles import CHECK, CLOSE, FILLER, OPEN, STEP
from qup.lab.world import generate
from qup.oracle import Answer
from qup.oracle.asks import Ask, request
from qup.text.prompts import oracle_prompts
from qup.text.turns import Rule

PROBLEMS = list(generate(LabProblems(n=30)))
WORDS = {"name": "Anna", "pron": "she", "item": "apples", "event": "loses", "s": 1, "a": 1, "b": 2, "r": 3, "word": "plus"}


class Scripted:
    """A student that goes on with a random sentence of the lab's native style, or ends once the answer is told."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.asked: list[str] = []

    def generate(self, clamped: Any) -> Iterator[tuple[int, list[Sample]]]:
        for place, asked in enumerate(clamped.requests):
            text = self.tokenizer.decode(asked.prompt_ids)
            self.asked.append(asked.id)
            if "answer :" in text.rpartition("<assistant>")[2]:
                said: list[int] = []
            else:
                table = OPEN["native"] if asked.id.endswith("/0") else (*STEP["native"], *CLOSE["native"], *CHECK, *FILLER)
                line = table[choose(0, asked.id, len(table))].format(**WORDS)
                said = self.tokenizer.encode(("" if asked.id.endswith("/0") else "\n") + line, add_special_tokens=False)
            said = said or [self.tokenizer.eos_token_id]
            yield place, [Sample(tuple(said), (0.0,) * len(said), "stop" if said[-1] == self.tokenizer.eos_token_id else "length")]


class Client:
    def __init__(self, answer: Callable[[Ask], Answer]) -> None:
        self.answer = answer
        self.asks: list[Ask] = []

    def ask(self, asks: Any) -> Iterator[tuple[Ask, Answer]]:
        for ask in asks:
            self.asks.append(ask)
            yield ask, self.answer(ask)


def programmed(cfg: LabOracle) -> Callable[[Ask], Answer]:
    def answer(ask: Ask) -> Answer:
        body = Programmed.answer(ask.messages, seed=0, attempt=ask.attempt, cfg=cfg)
        return Answer(body["choices"][0]["message"]["content"], "stop", 7, 3, 0.5, "k", False)

    return answer


@pytest.fixture(scope="module")
def words() -> Any:
    return lab_tokenizer.build()


def pair(words: Any, answer: Callable[[Ask], Answer], verifier: Verifier, retries: int = 2) -> Pair:
    student: Any = SimpleNamespace(
        tokenizer=words, stop_ids=(words.eos_token_id,), train_stop_id=words.eos_token_id, context=256,
        request=lambda name, question, n: SimpleNamespace(prompt_ids=tuple(words.encode(f"<bos> <user> {question} <assistant>", add_special_tokens=False))),
    )  # fmt: skip
    prompt = oracle_prompts(Oracle())["cooperate"]
    return Pair(
        student,
        Scripted(words),
        Sampling(max_new_tokens=128),
        Client(answer),
        prompt,
        "lab",
        Rule(),
        verifier,
        "lab",
        retries,
        24,
        lambda: None,
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(words: Any) -> tuple[Pair, list[Draft]]:
    drafts = [Draft(f"p{i}", 0, problem.question, str(problem.answer)) for i, problem in enumerate(PROBLEMS)]
    with Verifier(5.0) as verifier:
        made = pair(words, programmed(LabOracle(error_rate=0.0, refuse_rate=0.0)), verifier)
        made.settle(drafts)
    return made, drafts


def spans(draft: Draft) -> list[str]:
    return [draft.text[start:end] for start, end in zip([0, *draft.turns[:-1]], draft.turns, strict=True)]


def test_every_number_is_the_oracles_and_the_spans_make_up_the_trace(written: tuple[Pair, list[Draft]]) -> None:
    _, drafts = written
    for draft in drafts:
        assert draft.done, draft
        told = spans(draft)
        assert "".join(told) == draft.text
        assert not any(letter.isdigit() for span in told[::2] for letter in span)
        assert any(letter.isdigit() for span in told[1::2] for letter in span)


def test_the_oracle_goes_on_with_the_assistants_message(written: tuple[Pair, list[Draft]]) -> None:
    made, drafts = written
    asked: list[Ask] = made.client.asks  # type: ignore[attr-defined]
    assert len(asked) == sum(draft.requests for draft in drafts)
    last = [ask for ask in asked if ask.id == "p0/0"][-1]
    assert last.messages[-1]["role"] == "assistant"
    assert drafts[0].text.startswith(last.messages[-1]["content"])
    assert CONTINUE.items() <= last.body.items()
    body = request(Oracle(model="m"), {}, last).body
    assert body["continue_final_message"] is True and body["max_tokens"] == 96


def test_a_wrong_trace_is_written_anew_with_other_requests(words: Any) -> None:
    right, wrong = (programmed(LabOracle(error_rate=rate, refuse_rate=0.0)) for rate in (0.0, 1.0))
    draft = Draft("p", 0, PROBLEMS[0].question, str(PROBLEMS[0].answer))
    with Verifier(5.0) as verifier:
        made = pair(words, lambda ask: (right if ask.attempt else wrong)(ask), verifier)
        made.settle([draft])
        part = made.part([draft])
    assert draft.done and draft.failures[0] == "wrong"
    assert {ask.attempt for ask in made.client.asks} >= {0, 1}  # type: ignore[attr-defined]
    row = part.table.to_pylist()[0]
    assert row["turns"] == draft.turns and row["teacher"] == "lab" and row["eligible"]
    assert row["attempts"] == draft.attempt + 1 > 1 and part.counts["usd"] == 0.5 * draft.requests


@pytest.mark.parametrize(("finish", "verdict"), [("refused", "refused"), ("error", "error")])
def test_an_oracle_that_gives_nothing_ends_the_trace(words: Any, finish: str, verdict: str) -> None:
    draft = Draft("p", 0, PROBLEMS[0].question, str(PROBLEMS[0].answer))
    with Verifier(5.0) as verifier:
        pair(words, lambda ask: Answer("no", finish, 1, 1, 0.0, "k", False), verifier, retries=0).settle([draft])
    assert draft.verdict == verdict and not draft.done


def test_two_that_have_nothing_to_add_are_cut_off(words: Any) -> None:
    draft = Draft("p", 0, PROBLEMS[0].question, str(PROBLEMS[0].answer))
    with Verifier(5.0) as verifier:
        made = pair(words, lambda ask: Answer("", "length", 1, 0, 0.0, "k", False), verifier, retries=0)
        made.backend.generate = lambda clamped: (
            (i, [Sample((words.encode("1")[0],), (0.0,), "length")]) for i, _ in enumerate(clamped.requests)
        )  # type: ignore[method-assign]
        made.settle([draft])
    assert draft.verdict == "cut_off" and len(made.client.asks) == 1  # type: ignore[attr-defined]


def test_an_answer_that_repeats_what_was_begun_is_taken_from_where_that_ends(words: Any) -> None:
    plain = programmed(LabOracle(error_rate=0.0, refuse_rate=0.0))

    def repeating(ask: Ask) -> Answer:
        answer = plain(ask)
        begun = ask.messages[-1]["content"] if ask.messages[-1]["role"] == "assistant" else ""
        return Answer(begun + answer.text, "stop", 1, 1, 0.0, "k", False)

    draft = Draft("p", 0, PROBLEMS[0].question, str(PROBLEMS[0].answer))
    with Verifier(5.0) as verifier:
        pair(words, repeating, verifier).settle([draft])
    assert draft.done and draft.text.count("answer :") == 1
