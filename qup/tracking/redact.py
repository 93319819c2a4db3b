"""What may leave: settings without anything that opens a door."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(hidden)"
_NAMES = re.compile(r"(^|_)(api_?key|token|secret|password|passwd|credential|authorization|cookie)s?$", re.IGNORECASE)
_SECRET_ENV = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
_FREE_TEXT = ("setup", "extra", "headers", "body")
"""Sections that hold whatever a user writes: shell lines, request fields."""
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_SHORTEST = 6


def redact(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """The same plain value without keys, passwords in addresses, free shell lines, and values of secret environment variables."""
    known = environment if environment is not None else os.environ
    secrets = sorted({text for name, text in known.items() if _SECRET_ENV.search(name) and len(text) >= _SHORTEST}, key=len, reverse=True)
    return _redact(value, secrets)


def _redact(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _entry(str(name), inner, secrets) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(inner, secrets) for inner in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        return _USERINFO.sub(f"{HIDDEN}@", value)
    return value


def _entry(name: str, value: Any, secrets: list[str]) -> Any:
    if value in (None, "", [], {}, ()):
        return value
    if name in _FREE_TEXT or (_NAMES.search(name) and isinstance(value, str)):
        return HIDDEN
    return _redact(value, secrets)
