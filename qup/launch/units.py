"""Memory and time as SLURM writes them and people say them, and how much time is left."""

from __future__ import annotations

import re

from qup.errors import QupError

_UNITS = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_memory(text: str) -> int:
    """Bytes of a SLURM memory string: a number (megabytes) with K, M, G or T behind it."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.strip().upper())
    if not match:
        raise QupError(f"memory {text!r}: write a number with K, M, G or T, for example 16G")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_minutes(text: str) -> float:
    """Minutes of a SLURM time string: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    text = text.strip()
    if text in ("infinite", "UNLIMITED", "n/a"):
        return float("inf")
    days, dash, rest = text.rpartition("-")
    try:
        parts = [int(part) for part in rest.split(":")]
        if dash:
            hours, minutes, seconds = [*parts, 0, 0][:3]
            return int(days) * 1440 + hours * 60 + minutes + seconds / 60
        if len(parts) == 1:
            return float(parts[0])
        if len(parts) == 2:
            return parts[0] + parts[1] / 60
        hours, minutes, seconds = parts
        return hours * 60 + minutes + seconds / 60
    except ValueError:
        raise QupError(f"time {text!r}: write minutes, or [days-]hours:minutes:seconds, for example 2-12:00:00") from None


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def short(hours: float) -> tuple[str, str]:
    """Hours as a number and the unit that shows it: h, min or s; nothing is 0 h."""
    for unit, each in (("h", 1), ("min", 60)):
        if hours * each >= 1 or not hours:
            return f"{hours * each:,.1f}" if hours else "0", unit
    seconds = round(hours * 3600)
    return f"{seconds}" if seconds else "<1", "s"


def size(of: float) -> str:
    """Bytes in the unit that shows them."""
    for unit, each in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if of >= each:
            return f"{of / each:.1f} {unit}"
    return f"{of / 1e3:.0f} kB"


TELLING = 0.05
"""Share of a stage that has to be done before its own progress tells how long the rest takes."""


def remaining(spent_s: float, share: float, expected_s: float) -> float | None:
    """Seconds left, by the share done where it tells, else by what was expected; None where that has run out."""
    if share >= TELLING:
        return spent_s * (1 - share) / share
    return expected_s - spent_s if expected_s > spent_s else None


def left_in_words(seconds: float | None) -> str:
    """What `remaining` tells."""
    if seconds is None:
        return "longer than estimated"
    return f"{duration(seconds)} left" if round(seconds) else "finishing"
