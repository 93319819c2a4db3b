"""What every client of an HTTP server needs: how to reach it, how long it asks us to wait, messages that give no key away."""

from __future__ import annotations

import email.utils
import http.client
import json
import logging
import re
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

_LONGEST_WAIT_S = 600.0


def is_loopback(url: str | None) -> bool:
    """Whether an address is this machine's own; such a server is never asked through a proxy."""
    host = urlsplit(url or "").hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def http_client(base_url: str | None, *, asynchronous: bool = False) -> Any:
    """The HTTP client that the openai library is to use for `base_url`; the environment's proxies only where it lies elsewhere."""
    import openai

    quieten()
    make = openai.DefaultAsyncHttpxClient if asynchronous else openai.DefaultHttpxClient
    return make(trust_env=not is_loopback(base_url))


def fetch(url: str, body: Any = None, *, key: str | None = None, timeout_s: float) -> bytes:
    """One request, a POST of JSON where there is a `body`. Raises OSError; where the server answered with an error, HTTPError, which is one."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    direct = [urllib.request.ProxyHandler({})] if is_loopback(url) else []
    try:
        with urllib.request.build_opener(*direct).open(request, timeout=timeout_s) as reply:
            return bytes(reply.read())
    except http.client.HTTPException as error:  # a server that dies in the middle of its answer
        raise ConnectionError(f"{type(error).__name__}: {error}") from None


def fetch_json(url: str, body: Any = None, *, key: str | None = None, timeout_s: float) -> Any:
    """As `fetch`, the answer read as JSON; also raises ValueError."""
    return json.loads(fetch(url, body, key=key, timeout_s=timeout_s))


def quieten() -> None:
    """The HTTP libraries log a line for every request; where nobody asked for that, only their warnings are kept."""
    for name in ("httpx", "httpx2", "openai"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)


def secret_free(text: str, key: str) -> str:
    """`text` without the API key, nor anything that looks like one."""
    if len(key) > 3:
        text = text.replace(key, "***")
    return re.sub(r"\b(?:sk|key)-[\w*.\-]{6,}|\bBearer [\w*.\-]{6,}", "***", text)


def retry_after(headers: Any, clock: Callable[[], float] = time.time) -> float | None:
    """Seconds that the server asks us to wait, at most ten minutes; None where it does not say."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            parsed = email.utils.parsedate_tz(value)
            if parsed is None:
                continue
            seconds = email.utils.mktime_tz(parsed) - clock()
        return min(max(seconds, 0.0), _LONGEST_WAIT_S) if seconds == seconds else None
    return None
