"""What is asked of an Oracle, what it answers, and what makes two requests the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from qup.config.fingerprint import digest
from qup.config.schema import Oracle

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Ask:
    """One question. `id` names it to people and to the caller; `attempt` > 0 asks the same anew."""

    id: str
    task: str
    messages: list[dict[str, str]]
    attempt: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    """Further fields of the request's body, for this question alone."""


@dataclass(frozen=True)
class Answer:
    """What came back. `finish` is stop, length, refused, or error: the server rejected this very request, or failed at it
    time after time while it answered others; such an answer has no text, is not stored and may be asked again.

    `input_tokens` and `output_tokens` are the server's usage; `usd` is what they cost when they were bought.
    """

    text: str
    finish: str
    input_tokens: int
    output_tokens: int
    usd: float
    request_key: str
    from_store: bool


@dataclass(frozen=True)
class Request:
    """An Ask on its way: its key and the body of its request."""

    key: str
    ask: Ask
    body: dict[str, Any]


def endpoint(base_url: str | None) -> str:
    """The endpoint's address without credentials, query and trailing slash."""
    if not base_url:
        return OPENAI
    parts = urlsplit(base_url if "//" in base_url else f"//{base_url}", scheme="http")
    host = parts.netloc.rpartition("@")[2].lower()
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def request(oracle: Oracle, identity: dict[str, Any], ask: Ask) -> Request:
    """The request for an Ask; `identity` tells who answers.

    The body carries what is sent. The seed moves on with the attempt, or a deterministic server would repeat itself.
    """
    messages = [{name: _sound(value) for name, value in message.items()} for message in ask.messages]
    body: dict[str, Any] = {"model": oracle.model, "messages": messages}
    if not {"max_tokens", "max_completion_tokens"} & set(oracle.body):
        name = "max_completion_tokens" if oracle.backend == "openai" and endpoint(oracle.base_url) == OPENAI else "max_tokens"
        body[name] = oracle.max_tokens
    if oracle.temperature is not None:
        body["temperature"] = oracle.temperature
    if oracle.seed is not None:
        body["seed"] = oracle.seed + ask.attempt
    body |= oracle.body | ask.body
    return Request(digest({"where": identity, "body": body, "attempt": ask.attempt}), ask, body)


def estimated_tokens(messages: list[dict[str, str]]) -> int:
    """A guess at a request's input tokens, for limits only; bills come from the server's usage."""
    return sum(len(message["content"]) for message in messages) // 4 + 4 * len(messages)


def _sound(text: str) -> str:
    """Half surrogates can't be sent as UTF-8."""
    return text.encode("utf-8", "replace").decode()
