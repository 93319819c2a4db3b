"""What a setting carries beside its type: help, valid range or choices, and whether it is `runtime`.

Runtime settings change where or how fast a result is computed but not the result: they never enter a key.
"""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import Any


def opt(
    default: Any,
    help: str,
    *,
    choices: tuple[Any, ...] | None = None,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    runtime: bool = False,
) -> Any:
    """A field with its help line and what `validate` checks; mutable defaults are copied per instance."""
    metadata = {"help": help, "choices": choices, "above": above, "at_least": at_least, "at_most": at_most, "runtime": runtime}
    if isinstance(default, list | dict | set):
        return field(default_factory=partial(type(default), default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(cls: type, help: str, *, runtime: bool = False) -> Any:
    """A nested group of settings."""
    return field(default_factory=cls, metadata={"help": help, "runtime": runtime})
