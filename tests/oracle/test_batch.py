"""The batch API: half the price, and nothing paid twice whatever happens in between."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.oracle_server import books, tell
from qup.config.schema import Oracle
from qup.errors import BudgetExceeded, InputError, Interrupted
from qup.oracle import Answer, batch, open_oracle, read_spent, retrying
from tests.oracle.fakes import asks
from tests.oracle.test_endpoint import own


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "Batches", functools.partial(batch.Batches, poll_s=(0.02, 0.05)))


def client(url: str, folder: Path, **settings: Any) -> Any:
    arguments = {name: settings.pop(name) for name in ("max_usd", "stopping") if name in settings}
    oracle = Oracle(**{"backend": "openai", "mode": "batch", "model": "m", "base_url": url, "max_retries": 3} | settings)
    return open_oracle(oracle, folder, ledger=folder / "ledger", **arguments)


def ask_all(url: str, folder: Path, count: int = 30, **settings: Any) -> dict[str, Answer]:
    with client(url, folder, **settings) as opened:
        return {ask.id: answer for ask, answer in opened.ask(asks(*range(count)))}


def test_answers_come_at_half_the_price_and_serve_chat_mode_too(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving()
    answers = ask_all(url, tmp_path, usd_per_million_output=1e5)
    assert {id: answer.text for id, answer in answers.items()} == {f"id-{n}": own(n) for n in range(30)}
    assert {answer.usd for answer in answers.values()} == {0.25}
    spent = read_spent(tmp_path / "ledger")
    assert (spent.usd, spent.requests, spent.answered, spent.in_doubt) == (7.5, 30, 30, 0)
    ask_all(url, tmp_path, 31, mode="chat")
    seen = books(url)
    assert (seen["batches"], seen["requests"]) == (1, 1)


def test_a_stopped_batch_is_collected_by_the_next_run(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(batch_s=1.0)
    with pytest.raises(Interrupted, match="next run collects"):
        ask_all(url, tmp_path, stopping=lambda: books(url)["batches"] > 0)
    assert read_spent(tmp_path / "ledger").in_doubt == 30
    assert len(ask_all(url, tmp_path, 35)) == 35
    seen = books(url)
    assert seen["batches"] == 2 and seen["repeats"] == 0 and seen["distinct"] == 35
    spent = read_spent(tmp_path / "ledger")
    assert (spent.answered, spent.in_doubt) == (35, 0)


def test_a_batch_made_just_before_a_kill_is_found_by_its_tag(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving()
    with pytest.raises(Interrupted):
        ask_all(url, tmp_path, stopping=lambda: books(url)["batches"] > 0)
    (state,) = (tmp_path / "oracle" / "batches").glob("*.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"batch_id": None}))
    assert len(ask_all(url, tmp_path)) == 30
    assert books(url)["batches"] == 1


def test_a_batch_that_was_never_made_is_made_anew(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving()
    with pytest.raises(Interrupted):
        ask_all(url, tmp_path, stopping=lambda: books(url)["batches"] > 0)
    (state,) = (tmp_path / "oracle" / "batches").glob("*.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"batch_id": None}))
    tell(url)
    assert len(ask_all(url, tmp_path)) == 30
    spent = read_spent(tmp_path / "ledger")
    assert spent.status == {"no_answer": 30} and spent.in_doubt == 0


def test_lost_requests_are_sent_again_in_another_batch(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(batch_lost=0.3)
    answers = ask_all(url, tmp_path, max_retries=12)
    assert {answer.text for answer in answers.values()} == {own(n) for n in range(30)}
    seen = books(url)
    assert seen["batches"] > 1 and seen["repeats"] == 0


def test_what_is_lost_every_time_is_given_up(tmp_path: Path, behaving: Callable[..., str]) -> None:
    answers = ask_all(behaving(batch_lost=1.0), tmp_path, 3, max_retries=1)
    assert {answer.finish for answer in answers.values()} == {"error"}


def test_many_questions_go_up_side_by_side(tmp_path: Path, behaving: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_REQUESTS", 10)
    url = behaving(batch_s=0.3)
    assert len(ask_all(url, tmp_path, 45)) == 45
    assert books(url)["batches"] == 5


def test_retries_go_into_the_next_batch(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(batch_s=0.05)
    with client(url, tmp_path, seed=1) as opened:
        tries = [len(answers) for _, answers in retrying(opened, asks(*range(5)), lambda ask, answer: ask.attempt == 1, 2)]
    assert tries == [2] * 5
    assert books(url)["batches"] == 2


@pytest.mark.parametrize(("behaviour", "says"), [({"models": ["x"]}, r"has failed: The model m.*oracle\.model='m'"), ({"key": "k"}, "401")])
def test_a_refused_batch_says_why(tmp_path: Path, behaving: Callable[..., str], behaviour: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ask_all(behaving(**behaviour), tmp_path)


def test_only_what_the_budget_can_pay_at_its_dearest_goes_up(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving()
    prices = {"usd_per_million_output": 1e6, "max_tokens": 10}
    with pytest.raises(BudgetExceeded):
        ask_all(url, tmp_path, 30, max_usd=24.0, **prices)
    assert read_spent(tmp_path / "ledger").usd <= 24.0
    assert books(url)["distinct"] >= 4
    assert len(ask_all(url, tmp_path, 30, max_usd=1000.0, **prices)) == 30
    assert books(url)["repeats"] == 0


def test_batches_need_an_endpoint_that_has_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"oracle\.mode=batch: needs oracle\.backend=openai"):
        open_oracle(Oracle(backend="recorded", path="x", mode="batch"), tmp_path)
