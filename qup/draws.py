"""Random choices that depend on a seed and on names alone, never on order, process or library version."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def bits(seed: int, *labels: str | int) -> int:
    """64 random bits for a seed and labels; labels of different type or split never collide."""
    message = hashlib.blake2b(digest_size=8, person=b"qup.draws")
    for label in (seed, *labels):
        kind = b"i" if isinstance(label, int) else b"s"
        text = str(label).encode("utf-8", "surrogatepass")
        message.update(kind + str(len(text)).encode() + b":" + text)
    return int.from_bytes(message.digest(), "little")


def uniform(seed: int, *labels: str | int) -> float:
    """A number in [0, 1) with 53 random bits."""
    return (bits(seed, *labels) >> 11) * 2.0**-53


def choose(seed: int, labels: str | int | Sequence[str | int], n: int) -> int:
    """A number in 0 … n-1, all equally likely; `labels` names the draw.

    `solvable` keeps `eligible[choose(seed, problem_id, len(eligible))]`; the stream's random rule draws the same way,
    so that it takes the kept trace from the student's pool.
    """
    if n < 1:
        raise ValueError(f"n={n}: there is nothing to choose from")
    names = [labels] if isinstance(labels, str | int) else labels
    return min(int(uniform(seed, *names) * n), n - 1)
