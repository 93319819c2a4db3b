"""The chat completions protocol: what a response says, and what an error means."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from qup.config.schema import Oracle
from qup.oracle.asks import estimated_tokens
from qup.oracle.faults import Broken, Hopeless, Limited, Rejected
from qup.serving.http import retry_after, secret_free

_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded", "insufficient_balance")
_FILTERED = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window)|maximum (context|input)|too long|max_tokens.{0,40}too large|reduce the length", re.IGNORECASE
)
_UNKNOWN_MODEL = re.compile(r"model.{0,60}(not exist|not found|unknown|invalid model)|(unknown|no such|invalid) model", re.IGNORECASE)
_NEVER_CONNECTED = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "InvalidURL")


@dataclass(frozen=True)
class Reply:
    """A usable response. `counted`: the tokens are the server's usage, not our guess."""

    text: str
    finish: str
    input_tokens: int
    output_tokens: int
    counted: bool = True


def read_completion(raw: str | dict[str, Any], messages: list[dict[str, str]]) -> Reply:
    """The reply inside a response body; raises Broken where there is none."""
    try:
        data = json.loads(raw) if isinstance(raw, str) else raw
        choice = data["choices"][0]
        message = choice["message"]
        text = message.get("content")
        if isinstance(text, list):
            text = "".join(part.get("text", "") for part in text)
        if text is not None and not isinstance(text, str):
            raise TypeError("content is no text")
        refusal = message.get("refusal")
        reason = choice.get("finish_reason") or "stop"
        usage = data.get("usage") or {}
        counted = "prompt_tokens" in usage and "completion_tokens" in usage
        input_tokens = int(usage["prompt_tokens"]) if counted else estimated_tokens(messages)
        output_tokens = int(usage["completion_tokens"]) if counted else len(text or "") // 4
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        sample = raw if isinstance(raw, str) else json.dumps(raw)
        raise Broken("malformed", f"the response is no chat completion ({error!r}): {sample[:200]!r}", doubtful=True) from None
    if refusal or reason == "content_filter":
        return Reply(refusal or text or "", "refused", input_tokens, output_tokens, counted)
    return Reply(text or "", "length" if reason in ("length", "max_tokens") else "stop", input_tokens, output_tokens, counted)


def unusable(status: int, body: object, headers: Any, oracle: Oracle, service: str, key: str) -> Exception:
    """What a response with an error status means: Hopeless, Limited, Broken or Rejected."""
    error = body.get("error", body) if isinstance(body, dict) else body
    code = str((error.get("code") or error.get("type") or "") if isinstance(error, dict) else "")
    text = str(error.get("message", error) if isinstance(error, dict) else error)[:500]
    message = secret_free(f"{status} {text}".strip(), key)
    if status == 401 or (status == 403 and code not in _FILTERED):
        given = f"the key in ${oracle.api_key_env}" if key else f"the request, and ${oracle.api_key_env} holds no key"
        return Hopeless(f"{service} refused {given}: {message}")
    if status == 402 or (status in (400, 403, 429) and code in _QUOTA):
        return Hopeless(f"{service}: the quota is exhausted: {message}; raise it there and run again, answers are kept")
    if status == 404 or code == "model_not_found" or (status in (400, 422) and _UNKNOWN_MODEL.search(text)):
        return Hopeless(f"{service} knows no model oracle.model={oracle.model!r}, or oracle.base_url is not its address: {message}")
    if status == 429:
        return Limited(message, retry_after(headers))
    if code in _FILTERED:
        return Rejected("filtered", message)
    if status in (408, 409, 425) or status >= 500:
        return Broken(str(status), message, doubtful=status in (408, 502, 504), retry_after=retry_after(headers))
    return Rejected("too_long" if _TOO_LONG.search(text) else str(status), message)


def translate(error: Exception, oracle: Oracle, service: str, key: str) -> Exception:
    """What an exception of the openai library means."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return unusable(
            error.status_code, error.body if error.body is not None else error.message, error.response.headers, oracle, service, key
        )
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        if _cause(error, ("ConnectTimeout", "PoolTimeout")):
            return Broken("unreachable", f"no connection within the time limit of oracle.timeout_s={oracle.timeout_s:g} s", doubtful=False)
        return Broken("timeout", f"no answer within oracle.timeout_s={oracle.timeout_s:g} s", doubtful=True)
    if isinstance(error, openai.APIConnectionError):
        text = secret_free(str(error.__cause__ or error), key)
        if _cause(error, _NEVER_CONNECTED):
            return Broken("unreachable", f"no connection: {text}", doubtful=False)
        return Broken("cut", f"the connection was cut: {text}", doubtful=True)
    if isinstance(error, openai.APIError | UnicodeDecodeError):
        return Broken("malformed", secret_free(str(error), key)[:500], doubtful=True)
    return error


def _cause(error: BaseException | None, names: tuple[str, ...]) -> bool:
    while error is not None:
        if type(error).__name__ in names:
            return True
        error = error.__cause__ or error.__context__
    return False
