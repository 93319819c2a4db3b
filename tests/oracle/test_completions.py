"""Reading the chat completions protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qup.config.schema import Oracle
from qup.oracle.completions import Reply, read_completion, unusable
from qup.oracle.faults import Broken, Hopeless, Limited, Rejected
from qup.serving.http import retry_after, secret_free

MESSAGES = [{"role": "user", "content": "x" * 40}]


def body(message: dict[str, Any], reason: str | None = "stop", usage: Any = None) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": reason}], "usage": usage or {"prompt_tokens": 3, "completion_tokens": 4}}


@pytest.mark.parametrize(
    ("given", "reply"),
    [
        (body({"content": "t"}), Reply("t", "stop", 3, 4)),
        (body({"content": "t"}, "length"), Reply("t", "length", 3, 4)),
        (body({"content": None}, None), Reply("", "stop", 3, 4)),
        (body({"content": "", "refusal": "no"}), Reply("no", "refused", 3, 4)),
        (body({"content": ""}, "content_filter"), Reply("", "refused", 3, 4)),
        (body({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), Reply("ab", "stop", 3, 4)),
        (body({"content": "12345678"}, usage={"total_tokens": 1}), Reply("12345678", "stop", 14, 2, counted=False)),
    ],
)
def test_replies(given: dict[str, Any], reply: Reply) -> None:
    assert read_completion(json.dumps(given), MESSAGES) == reply


@pytest.mark.parametrize(
    "raw", ["", "<html>", '{"choices": [', "[]", "null", '{"choices": []}', '{"choices": [{}]}', json.dumps(body({"content": 7}))]
)
def test_what_is_no_completion_is_malformed_and_in_doubt(raw: str) -> None:
    with pytest.raises(Broken) as caught:
        read_completion(raw, MESSAGES)
    assert caught.value.status == "malformed" and caught.value.doubtful


@pytest.mark.parametrize(
    ("status", "error", "kind", "says"),
    [
        (401, {"message": "bad key"}, Hopeless, "$ORACLE_KEY"),
        (403, {"message": "no access"}, Hopeless, "$ORACLE_KEY"),
        (402, {"message": "pay"}, Hopeless, "quota"),
        (429, {"message": "quota", "code": "insufficient_quota"}, Hopeless, "quota"),
        (429, {"message": "slow"}, Limited, "slow"),
        (404, {"message": "none"}, Hopeless, "oracle.model='gpt'"),
        (400, {"message": "The model gpt does not exist"}, Hopeless, "oracle.model='gpt'"),
        (400, {"message": "flagged", "code": "content_filter"}, Rejected, "flagged"),
        (400, {"message": "maximum context length is 10"}, Rejected, "context"),
        (422, {"message": "temperature"}, Rejected, "temperature"),
        (500, {"message": "oops"}, Broken, "oops"),
        (503, "text", Broken, "text"),
        (408, {}, Broken, "408"),
    ],
)
def test_what_an_error_status_means(status: int, error: Any, kind: type[Exception], says: str) -> None:
    meaning = unusable(
        status, {"error": error} if isinstance(error, dict) else error, {}, Oracle(model="gpt", api_key_env="ORACLE_KEY"), "X", "k" * 20
    )
    assert type(meaning) is kind
    assert says in str(meaning)


def test_only_what_may_have_been_bought_is_in_doubt() -> None:
    doubtful = {status: unusable(status, {}, {}, Oracle(), "X", "").doubtful for status in (408, 500, 502, 503, 504)}  # type: ignore[attr-defined]
    assert doubtful == {408: True, 500: False, 502: True, 503: False, 504: True}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "2", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "1e9"}, 600.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 20.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, clock=lambda: 10.0) == seconds


def test_no_message_shows_a_key() -> None:
    text = secret_free("Incorrect API key provided: sk-abc***def. Bearer tok_123456 and my-own-secret", "my-own-secret")
    assert "abc" not in text and "tok_" not in text and "own" not in text
    assert secret_free("no key here", "") == "no key here"
    assert secret_free("Incorrect API key provided: key-abc123def", "") == "Incorrect API key provided: ***"
