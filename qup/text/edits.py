"""How much of a trace was changed, counted in tokens."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein


def changed_share(before: Sequence[int], after: Sequence[int]) -> float:
    """Tokens inserted, deleted or replaced to get from one to the other, over the longer one's length: 0 … 1.

    Two empty traces are 0 apart.
    """
    return float(Levenshtein.normalized_distance(before, after))
