"""The client: asked once, stored before use, paid to the limit, stopped when told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from qup.errors import BudgetExceeded, InputError, Interrupted, StoreError
from qup.oracle import Answer, Ask, read_spent, retrying, sender
from qup.oracle.asks import Request
from qup.oracle.completions import Reply
from qup.oracle.faults import Broken, Limited, Rejected
from qup.oracle.store import AnswerStore
from tests.oracle.fakes import FakeBackend, asks, echo, opened


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_BACKOFF", lambda state: 0.01)


def test_every_question_gets_its_own_answer_and_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend(echo)
    for again in (False, True):
        with opened(monkeypatch, backend, tmp_path) as client:
            got = {ask.id: answer for ask, answer in client.ask(asks(*range(100)))}
            assert {id: answer.text for id, answer in got.items()} == {f"id-{n}": f"to q{n}" for n in range(100)}
            assert {answer.from_store for answer in got.values()} == {again}
            assert client.spent.requests == (0 if again else 100)
    assert set(backend.sent.values()) == {1}


def test_an_answer_is_on_disk_before_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(monkeypatch, FakeBackend(echo), tmp_path) as client:
        for _, answer in client.ask(asks(*range(20))):
            reader = AnswerStore(tmp_path / "oracle" / "answers")
            assert reader.get(answer.request_key) is not None
            reader.close()


def test_questions_are_taken_as_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield from asks(taken)

    backend = FakeBackend(echo, 0.01)
    with opened(monkeypatch, backend, tmp_path, concurrency=4) as client:
        given = client.ask(endless())  # type: ignore[arg-type]
        for done in range(1, 101):
            next(given)
            assert taken - done <= 4 * 4
        given.close()
    assert backend.most <= 4
    assert sum(backend.sent.values()) <= 100 + 16


def test_the_same_question_twice_is_sent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend(echo, 0.05)
    with opened(monkeypatch, backend, tmp_path) as client:
        got = list(client.ask([*asks(1), Ask("other", "refine", next(asks(1)).messages), *asks(2)]))
    assert sorted((ask.id, answer.text) for ask, answer in got) == [("id-1", "to q1"), ("id-2", "to q2"), ("other", "to q1")]
    assert sum(backend.sent.values()) == 2


def test_attempts_are_requests_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend(echo)
    with opened(monkeypatch, backend, tmp_path) as client:
        list(client.ask([*asks(1), *asks(1, attempt=1)]))
    assert len(backend.sent) == 2


def test_what_fails_in_between_is_sent_again_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [
        Broken("cut", "cut", doubtful=True),
        Limited("slow", 0.01),
        Broken("500", "oops", doubtful=False),
        Limited("slow", None),
        Broken("malformed", "?", doubtful=True),
    ]

    def behave(request: Request, n: int) -> Reply:
        if n < len(faults) and request.body["messages"][-1]["content"] == "q1":
            raise faults[n]
        return echo(request, n)

    with opened(monkeypatch, FakeBackend(behave), tmp_path, usd_per_million_output=1e5) as client:
        got = {ask.id: answer for ask, answer in client.ask(asks(1, 2))}
        spent = client.spent
    assert got["id-1"].text == "to q1" and got["id-1"].usd == 2.0
    assert spent.as_dict() == {
        "requests": 7,
        "answered": 2,
        "input_tokens": 20,
        "output_tokens": 40,
        "usd": 4.0,
        "in_doubt": 2,
        "retries": 5,
        "status": {"429": 2, "500": 1, "cut": 1, "malformed": 1},
    }


def test_a_request_that_fails_alone_is_given_up_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def behave(request: Request, n: int) -> Reply:
        if request.body["messages"][-1]["content"] == "q3":
            raise Broken("500", "cannot", doubtful=False)
        return echo(request, n)

    backend = FakeBackend(behave, 0.005)
    for _ in range(2):
        with opened(monkeypatch, backend, tmp_path, concurrency=2) as client:
            got = {ask.id: answer for ask, answer in client.ask(asks(*range(60)))}
        assert got["id-3"] == Answer("", "error", 0, 0, 0.0, got["id-3"].request_key, False)
        assert len(got) == 60 and sum(answer.finish == "error" for answer in got.values()) == 1
    assert backend.sent[got["id-3"].request_key] == 8, "an error is not stored"


@pytest.mark.parametrize(("status", "count"), [("unreachable", 10_000), ("unreachable", 1), ("500", 10_000)])
def test_everything_failing_ends_in_one_error_that_names_endpoint_and_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, count: int
) -> None:
    def behave(request: Request, n: int) -> Reply:
        raise Broken(status, "no connection: refused", doubtful=False)

    backend = FakeBackend(behave)
    with opened(monkeypatch, backend, tmp_path) as client, pytest.raises(InputError, match=r"the fake endpoint can't be used.*refused"):
        list(client.ask(asks(*range(count))))
    assert sum(backend.sent.values()) < 30


def test_an_endpoint_that_goes_down_and_comes_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sends = 0

    def behave(request: Request, n: int) -> Reply:
        nonlocal sends
        sends += 1
        if 50 <= sends < 70:
            raise Broken("unreachable", "down", doubtful=False)
        return echo(request, n)

    monkeypatch.setattr(sender.random, "uniform", lambda low, high: 0.01)
    with opened(monkeypatch, FakeBackend(behave, 0.005), tmp_path, max_retries=8) as client:
        assert len(list(client.ask(asks(*range(150))))) == 150


def test_a_request_rejected_before_any_was_answered_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def behave(request: Request, n: int) -> Reply:
        raise Rejected("400", "400 temperature is not supported")

    backend = FakeBackend(behave)
    with opened(monkeypatch, backend, tmp_path) as client, pytest.raises(InputError, match=r"temperature is not supported.*oracle\.body"):
        list(client.ask(asks(*range(1000))))
    assert sum(backend.sent.values()) <= 32


@pytest.mark.parametrize(("status", "finish"), [("too_long", "error"), ("filtered", "refused")])
def test_a_request_that_the_server_will_not_take_is_that_requests_affair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, finish: str
) -> None:
    def behave(request: Request, n: int) -> Reply:
        if request.body["messages"][-1]["content"] == "q0":
            raise Rejected(status, "no")
        return echo(request, n)

    with opened(monkeypatch, FakeBackend(behave), tmp_path) as client:
        got = {ask.id: answer.finish for ask, answer in client.ask(asks(*range(10)))}
    assert got.pop("id-0") == finish
    assert set(got.values()) == {"stop"}


def test_the_budget_holds_to_within_the_requests_in_flight_and_the_rest_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend(echo, 0.005)
    prices = {"usd_per_million_output": 1e6 / 20, "concurrency": 8}
    ledger = tmp_path / "ledger"
    got = []
    for limit in (20.0, 30.0):
        with (
            opened(monkeypatch, backend, tmp_path, max_usd=limit, ledger=ledger, **prices) as client,
            pytest.raises(BudgetExceeded, match=rf"{limit:g} dollars.*study\.max_oracle_usd"),
        ):
            got += [answer for _, answer in client.ask(asks(*range(1000)))]
        assert limit - 1 <= read_spent(ledger).usd <= limit + 8
    with opened(monkeypatch, backend, tmp_path, max_usd=70.0, ledger=ledger, **prices) as client:
        assert len(list(client.ask(asks(*range(60))))) == 60
        assert client.spent.usd == 60.0
    assert set(backend.sent.values()) == {1}


def test_stopping_keeps_what_was_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend(echo, 0.3)
    stop = False
    started = time.monotonic()
    with opened(monkeypatch, backend, tmp_path, stopping=lambda: stop, concurrency=8) as client, pytest.raises(Interrupted):
        for _ in client.ask(asks(*range(1000))):
            stop = True
    assert time.monotonic() - started < 5
    sent = sum(backend.sent.values())
    store = AnswerStore(tmp_path / "oracle" / "answers")
    assert len(store) == sent < 40
    assert client.spent.in_doubt == 0


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: AnswerStore, records: object) -> None:
        raise StoreError("an answer can't be stored: No space left on device")

    monkeypatch.setattr(AnswerStore, "write", fails)
    with opened(monkeypatch, FakeBackend(echo), tmp_path) as client, pytest.raises(StoreError, match="No space left"):
        list(client.ask(asks(*range(100))))
    assert client.spent.in_doubt > 0


def test_a_client_that_failed_fails_again_instead_of_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def behave(request: Request, n: int) -> Reply:
        raise Rejected("400", "no")

    with opened(monkeypatch, FakeBackend(behave), tmp_path) as client:
        for _ in range(2):
            with pytest.raises(InputError):
                list(client.ask(asks(1)))


def test_none_means_come_again_after_the_next_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[str] = []

    def source() -> object:
        yield from asks(1)
        while not answered:
            yield None
        yield from asks(2)

    with opened(monkeypatch, FakeBackend(echo, 0.02), tmp_path) as client:
        for ask, _ in client.ask(source()):  # type: ignore[arg-type]
            answered.append(ask.id)
        assert list(client.ask([None])) == []
    assert answered == ["id-1", "id-2"]


@pytest.mark.parametrize("latency", [0.0, 0.02])
def test_retrying_asks_anew_until_accepted_or_out_of_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latency: float) -> None:
    backend = FakeBackend(lambda request, n: Reply(str(request.ask.attempt), "stop", 1, 1), latency)
    wanted = {"id-0": 0, "id-1": 1, "id-2": 2, "id-3": 9}
    with opened(monkeypatch, backend, tmp_path, concurrency=2) as client:
        got = {
            ask.id: answers for ask, answers in retrying(client, asks(*range(4)), lambda ask, answer: int(answer.text) >= wanted[ask.id], 2)
        }
    assert {id: [answer.text for answer in answers] for id, answers in got.items()} == {
        "id-0": ["0"],
        "id-1": ["0", "1"],
        "id-2": ["0", "1", "2"],
        "id-3": ["0", "1", "2"],
    }


def test_what_a_killed_process_had_in_flight_is_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        with opened(monkeypatch, FakeBackend(echo, 0.5), tmp_path, ledger=tmp_path / "ledger", concurrency=4) as client:
            for _ in client.ask(asks(*range(100))):
                os._exit(9)
    os.waitpid(child, 0)
    backend = FakeBackend(echo)
    with opened(monkeypatch, backend, tmp_path, ledger=tmp_path / "ledger") as client:
        assert len(list(client.ask(asks(*range(100))))) == 100
        spent = client.spent
    stored = 100 - sum(backend.sent.values())
    assert 1 <= stored <= 8
    assert 0 <= spent.in_doubt <= 8
    assert spent.requests == spent.answered + spent.in_doubt
