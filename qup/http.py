"""What every client of an HTTP server needs: how long it asks us to wait, and messages that give no key away."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable
from typing import Any

_LONGEST_WAIT_S = 600.0


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
