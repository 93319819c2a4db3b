"""What makes two requests the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qup.config.schema import Oracle
from qup.oracle.asks import Ask, endpoint, request

ORACLE = Oracle(backend="openai", model="m", base_url="http://a/v1")
ASK = Ask("p1", "refine", [{"role": "user", "content": "q"}])


def key(oracle: Oracle = ORACLE, ask: Ask = ASK, where: str = "x") -> str:
    return request(oracle, {"where": where}, ask).key


@pytest.mark.parametrize(
    "changed",
    [
        key(replace(ORACLE, model="n")),
        key(replace(ORACLE, temperature=0.0)),
        key(replace(ORACLE, max_tokens=7)),
        key(replace(ORACLE, seed=0)),
        key(replace(ORACLE, body={"reasoning_effort": "low"})),
        key(ask=replace(ASK, attempt=1)),
        key(ask=replace(ASK, messages=[{"role": "user", "content": "q "}])),
        key(where="y"),
    ],
)
def test_what_changes_the_answer_changes_the_key(changed: str) -> None:
    assert changed != key()


def test_what_does_not_change_the_answer_leaves_the_key() -> None:
    other = replace(ORACLE, rpm=1.0, concurrency=1, mode="batch", timeout_s=1.0, usd_per_million_input=3.0, api_key_env="K", shard_size=1)
    assert key(other, replace(ASK, id="p2", task="synthesize")) == key()


def test_the_seed_moves_with_the_attempt() -> None:
    bodies = [request(replace(ORACLE, seed=5), {}, replace(ASK, attempt=attempt)).body for attempt in (0, 1)]
    assert [body["seed"] for body in bodies] == [5, 6]
    assert "seed" not in request(ORACLE, {}, ASK).body


def test_the_length_limit_is_named_as_the_endpoint_wants_it() -> None:
    assert request(ORACLE, {}, ASK).body["max_tokens"] == 4096
    assert request(replace(ORACLE, base_url=None), {}, ASK).body["max_completion_tokens"] == 4096
    body = request(replace(ORACLE, body={"max_completion_tokens": 9}), {}, ASK).body
    assert body["max_completion_tokens"] == 9 and "max_tokens" not in body


def test_half_surrogates_do_not_reach_the_wire() -> None:
    sent = request(ORACLE, {}, replace(ASK, messages=[{"role": "user", "content": "a\ud800b"}]))
    sent.body["messages"][0]["content"].encode("utf-8")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, "https://api.openai.com/v1"),
        ("http://Host:80/v1/", "http://host:80/v1"),
        ("https://user:secret@host/v1?api-key=secret#x", "https://host/v1"),
    ],
)
def test_an_endpoint_is_shown_without_secrets(given: str | None, shown: str) -> None:
    assert endpoint(given) == shown
