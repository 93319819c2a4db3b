"""What a server's log says of its death."""

from __future__ import annotations

import re
from pathlib import Path

from qup.files import tail

_PREFIX = r"(?:\([^)]*\) )?(?:[A-Z]+ \d\d-\d\d [\d:]+ (?:\[[^\]]*\] )?)?"
_ERROR = re.compile(rf"^{_PREFIX}((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt): .+)$")
_ELSEWHERE = re.compile(r"root cause|EngineDeadError|Engine core initialization failed", re.IGNORECASE)
"""vLLM's processes report each other's failures; these lines say that another one says why."""
_LONGEST = 400
MOST = 1 << 20
"""Bytes of a log that are read."""


def cause(log: Path, offset: int = 0) -> str:
    """Why the server ended, by its log from byte `offset` on: the last error that points to no other; else the last line."""
    lines = tail(log, MOST, offset).splitlines()
    errors = [match[1] for text in lines if (match := _ERROR.match(text.rstrip()))]
    chosen = [text for text in errors if not _ELSEWHERE.search(text)] or errors or [text.strip() for text in lines if text.strip()]
    return chosen[-1][:_LONGEST] if chosen else "its log is empty"
