"""Where a trace's steps begin: by characters, then by tokens. One implementation for every measure that needs steps."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

GAPS = {"sentences": re.compile(r"(?<=[.?!])\s+|\n+"), "lines": re.compile(r"\n+"), "blank_lines": re.compile(r"\n[^\S\n]*\n\s*")}
"""What stands between two steps. The authors of ASLEC split after ". " and "? " alone; here "! " and a line's end part too."""


def starts(text: str, steps: str) -> list[int]:
    """The character at which each step begins, white space left out; none for a text of white space."""
    found = []
    at = 0
    for gap in GAPS[steps].finditer(text):
        if text[at : gap.start()].strip():
            found.append(at + _blank(text[at : gap.start()]))
        at = gap.end()
    if text[at:].strip():
        found.append(at + _blank(text[at:]))
    return found


def _blank(text: str) -> int:
    return len(text) - len(text.lstrip())


def first_tokens(text: str, end_T: Sequence[int] | np.ndarray, steps: str) -> np.ndarray:
    """Index of each step's first token, int32 ascending: the one that holds the step's first character.

    `end_T`: the character after each token's last one. Of several steps within one token the first alone is kept.
    """
    ends = np.maximum.accumulate(np.asarray(end_T, np.int64)) if len(end_T) else np.zeros(0, np.int64)
    found = np.unique(np.searchsorted(ends, starts(text, steps), side="right"))
    return found[found < len(ends)].astype(np.int32)
