"""Work that is done once for the same things, whether they can be hashed or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Once:
    """Calls each function once for the same arguments: texts and whole numbers by value, all else by identity.

    What was given is kept alive, so that no identity comes twice.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}

    def __call__(self, make: Callable[..., T], *given: Any) -> T:
        key = (make, *[one if type(one) in (str, int) else (id(one),) for one in given])
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = (make(*given), given)
        result: T = made[0]
        return result
