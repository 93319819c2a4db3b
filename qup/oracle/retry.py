"""Asks anew where an answer won't do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from qup.oracle.asks import Answer, Ask
from qup.oracle.client import OracleClient


def retrying(
    client: OracleClient, asks: Iterable[Ask], accept: Callable[[Ask, Answer], bool], retries: int
) -> Iterator[tuple[Ask, list[Answer]]]:
    """Each question with all answers it took: the last is accepted, or `retries` further attempts failed too.

    A question keeps its messages; only its attempt moves on. Questions come back in the order they are settled, and are
    told apart by (task, id).
    """
    source = iter(asks)
    again: deque[Ask] = deque()
    answers: dict[tuple[str, str], list[Answer]] = {}

    def questions() -> Iterator[Ask | None]:
        for ask in source:
            answers[ask.task, ask.id] = []
            while again:
                yield again.popleft()
            yield ask
        while answers:
            yield again.popleft() if again else None

    for ask, answer in client.ask(questions()):
        name = (ask.task, ask.id)
        answers[name].append(answer)
        if not accept(ask, answer) and len(answers[name]) <= retries:
            again.append(replace(ask, attempt=ask.attempt + 1))
        else:
            yield replace(ask, attempt=ask.attempt + 1 - len(answers[name])), answers.pop(name)
