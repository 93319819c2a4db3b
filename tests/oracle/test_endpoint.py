"""Against a real server over a real connection: what users meet when the endpoint is wrong, and what the wire may do."""

from __future__ import annotations

import hashlib
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.oracle_server import books, tell
from qup.config.schema import Oracle
from qup.errors import InputError
from qup.oracle import Answer, Ask, open_oracle, read_spent, sender
from tests.oracle.fakes import asks

SECRET = "sk-very-secret-0123456789"


def ask_all(url: str, folder: Path, count: int = 40, **settings: Any) -> dict[str, Answer]:
    settings = {"backend": "openai", "model": "m", "base_url": url, "api_key_env": "QUP_TEST_KEY", "timeout_s": 20.0} | settings
    with open_oracle(Oracle(**settings), folder, ledger=folder / "ledger") as client:
        return {ask.id: answer for ask, answer in client.ask(asks(*range(count)))}


def own(n: int) -> str:
    """The server's answer to question n."""
    return f"answer {hashlib.sha256(f'q{n}'.encode()).hexdigest()[:12]}"


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_BACKOFF", lambda state: 0.02)
    monkeypatch.setenv("QUP_TEST_KEY", SECRET)


def test_a_server_that_stumbles_loses_nothing_and_repeats_only_what_was_cut(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(limited=0.1, retry_after=0.05, cut=0.1, malformed=0.1, latency_s=0.005)
    answers = ask_all(url, tmp_path, 150)
    assert {id: answer.text for id, answer in answers.items()} == {f"id-{n}": own(n) for n in range(150)}
    seen, spent = books(url), read_spent(tmp_path / "ledger")
    assert seen["distinct"] == seen["good"] == 150
    assert seen["cut"] > 3 and seen["malformed"] > 3 and seen["limited"] > 3
    assert seen["repeats"] <= seen["cut"]
    assert spent.in_doubt == seen["cut"] + seen["malformed"]
    assert dict(spent.status) == {"429": seen["limited"], "cut": seen["cut"], "malformed": seen["malformed"]}
    assert spent.requests == seen["requests"]
    assert (spent.input_tokens, spent.output_tokens) == (sum(len(f"q{n}") // 4 for n in range(150)), 150 * 5)
    ask_all(url, tmp_path, 150)
    assert books(url)["requests"] == seen["requests"]


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ({"key": "another"}, r"refused the key in \$QUP_TEST_KEY: 401"),
        ({"models": ["gpt-x"]}, r"oracle\.model='m'.*does not exist"),
        ({"quota": 0}, "quota is exhausted"),
        ({"status": 403}, r"\$QUP_TEST_KEY"),
        ({"status": 402}, "quota"),
        ({"status": 400, "error": {"message": "Unsupported parameter: 'temperature'"}}, r"Unsupported parameter.*oracle\.temperature"),
        ({"status": 500}, "can't be used: .* 500"),
    ],
)
def test_what_is_hopeless_stops_at_once_with_the_reason(
    tmp_path: Path, behaving: Callable[..., str], behaviour: dict[str, Any], says: str
) -> None:
    url = behaving(**behaviour)
    with pytest.raises(InputError, match=says) as caught:
        ask_all(url, tmp_path, 2000)
    assert books(url).get("requests", 0) <= 40
    assert len(str(caught.value).splitlines()) == 1


def test_a_quota_that_runs_out_keeps_what_was_answered(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(quota=30)
    with pytest.raises(InputError, match="quota"):
        ask_all(url, tmp_path, 100)
    answered = books(url)["good"]
    tell(url)
    assert len(ask_all(url, tmp_path, 100)) == 100
    assert books(url)["good"] == 100 - answered


def test_no_key_reaches_the_store_the_ledger_the_log_or_an_error(
    tmp_path: Path, behaving: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ask_all(behaving(key=SECRET, cut=0.2), tmp_path, 20)
    with pytest.raises(InputError) as caught:
        ask_all(behaving(key="another"), tmp_path / "b", 20)
    url = behaving(key="another").replace("http://", f"http://user:{SECRET}@")
    with pytest.raises(InputError) as with_password:
        ask_all(url, tmp_path / "c", 2)
    texts = [
        caplog.text,
        str(caught.value),
        str(with_password.value),
        *(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()),
    ]
    assert len(texts) > 4
    assert not any("very-secret" in text for text in texts)


def test_no_key_for_the_providers_own_endpoint_is_told_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUP_TEST_KEY")
    with pytest.raises(InputError, match=r"oracle\.api_key_env=QUP_TEST_KEY"):
        ask_all(None, tmp_path, 1)  # type: ignore[arg-type]


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(InputError, match=rf"{url} can't be used: .*no connection"):
        ask_all(url, tmp_path, 5000)
    assert read_spent(tmp_path / "ledger").in_doubt == 0


def test_a_server_that_accepts_and_never_answers(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(hang=True)
    started = time.monotonic()
    with pytest.raises(InputError, match=r"can't be used: .*oracle\.timeout_s=0\.5"):
        ask_all(url, tmp_path, 5000, timeout_s=0.5, concurrency=8)
    assert time.monotonic() - started < 15
    assert read_spent(tmp_path / "ledger").in_doubt == books(url)["requests"]


def test_a_server_that_is_no_oracle(tmp_path: Path, behaving: Callable[..., str]) -> None:
    with pytest.raises(InputError, match=r"oracle\.base_url is not its address"):
        ask_all(behaving() + "/wrong", tmp_path, 100)


def test_retry_after_is_honoured(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(limited=0.5, retry_after=0.4)
    started = time.monotonic()
    assert len(ask_all(url, tmp_path, 4)) == 4
    assert books(url)["limited"] >= 1
    assert time.monotonic() - started >= 0.4


def test_a_rate_that_nobody_stated_is_found(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(rate=30)
    started = time.monotonic()
    assert len(ask_all(url, tmp_path, 60, concurrency=16)) == 60
    assert time.monotonic() - started > 1.0
    assert books(url)["requests"] < 60 * 4


def test_stated_requests_a_minute_are_kept(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(rate=21)
    ask_all(url, tmp_path, 40, rpm=20 * 60.0)
    assert books(url).get("over_rate", 0) == 0


def test_a_length_limit_and_a_refusal_come_through(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving(status=400, error={"message": "flagged", "code": "content_filter"})
    answers = ask_all(url, tmp_path, 3)
    assert {answer.finish for answer in answers.values()} == {"refused"}
    assert {answer.from_store for answer in ask_all(url, tmp_path, 3).values()} == {True}
    assert isinstance(next(asks(1)), Ask)
