"""Judging cells before anything runs: every fault of a grid at once, each naming key, value and what is valid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from qup.config.checks import cross_faults
from qup.config.compose import Composer, Draft
from qup.config.fingerprint import plain
from qup.config.keys import counted, one_of, range_in_words
from qup.config.once import Once
from qup.config.schema import Config
from qup.config.sweeps import expand
from qup.errors import ConfigError, Fault
from qup.identity.resolve import file_faults
from qup.pipeline.requests import request_faults
from qup.serving.check import serving_faults

SHARED = (
    "dir",
    "name",
    "dry_run",
    "extend",
    "replace",
    "wait",
    "code",
    "other_code",
    "max_gpu_hours",
    "max_oracle_usd",
    "rehearse",
    "plain",
)
"""Settings of `study` that hold for a whole grid and can't be swept."""


def faults(cell: Config, *, launcher: str = "local") -> list[Fault]:
    """Everything wrong with one cell's settings."""
    return _Judge(launcher).faults(Draft(cell))


def validate_grid(cells: Sequence[Config], *, launcher: str = "local") -> None:
    """Raises ConfigError as `refuse_faulty` does."""
    refuse_faulty([Draft(cell) for cell in cells], launcher=launcher)


def refuse_faulty(drafts: Sequence[Draft], *, launcher: str = "local") -> None:
    """Raises ConfigError with all faults of all cells, each once with the number of cells that have it.

    Where settings are at fault, the files that the others name are looked into as well; where none are, that is left
    to `resolve_grid`, which reads them anyway.
    """
    judge = _Judge(launcher)
    each = [[*draft.faults, *judge.faults(draft)] for draft in drafts]
    sound = [draft.cell for draft in drafts if draft.cell is not None and not draft.faults]
    found = counted([fault for own in each for fault in own], len(drafts))
    if sound or not found:
        found += _between(sound)
    if found:
        judged = [
            (draft.cell, {fault.key.split(".")[0] for fault in own})
            for draft, own in zip(drafts, each, strict=True)
            if draft.cell is not None and draft.chosen
        ]
        raise ConfigError([*found, *file_faults(judged)])


def checked_grid(composer: Composer, lists: Sequence[Sequence[str]], *, launcher: str = "local", one_cell: bool = False) -> list[Config]:
    """The cells of a grid. Raises ConfigError with what can't be composed and what can't be run, of all cells."""
    drafts = composer.gather(lists, one_cell=one_cell)
    refuse_faulty(drafts, launcher=launcher)
    return [draft.cell for draft in drafts if draft.cell is not None]


def diagnose(composer: Composer, overrides: Sequence[str], *, one_cell: bool) -> list[Fault]:
    """Everything wrong with a command line that was refused at its first fault."""
    try:
        checked_grid(composer, [list(overrides)] if one_cell else expand(composer, overrides))
    except ConfigError as error:
        return list(error.faults)
    return []


class _Judge:
    """Judges the settings of one grid's cells; sections that cells share are judged once."""

    def __init__(self, launcher: str) -> None:
        self._launcher = launcher
        self._once = Once()

    def faults(self, draft: Draft) -> list[Fault]:
        cell = draft.cell
        if cell is None:
            return []
        found: list[Fault] = []
        for field in dataclasses.fields(cell):
            found += self._once(_field_faults, field, getattr(cell, field.name), field.name)
        if not draft.chosen:
            return found
        wrong = {fault.key for fault in (*draft.faults, *found)}
        across = [*cross_faults(cell), *serving_faults(cell), *request_faults(cell.cluster, self._launcher)]
        return found + [fault for fault in across if fault.key not in wrong]


def _section_faults(section: Any, at: str) -> list[Fault]:
    """What the settings' own metadata says: choices, ranges, numbers that are none."""
    named = dataclasses.fields(section)
    return [fault for field in named for fault in _field_faults(field, getattr(section, field.name), f"{at}.{field.name}")]


def _field_faults(field: Any, value: Any, key: str) -> list[Fault]:
    if dataclasses.is_dataclass(value):
        return _section_faults(value, key)
    if isinstance(value, dict):
        inner = {name: item for name, item in value.items() if dataclasses.is_dataclass(item)}
        return [fault for name, item in inner.items() for fault in _section_faults(item, f"{key}.{name}")]
    if isinstance(value, float) and not math.isfinite(value):
        return [Fault(key, value, "must be a finite number")]
    return list(_value_faults(value, key, field.metadata))


def _value_faults(value: Any, key: str, metadata: Any) -> Iterator[Fault]:
    choices = metadata.get("choices")
    if choices is not None and value not in choices:
        named = [str(choice) for choice in choices if choice != ""]
        yield Fault(key, value, one_of(str(value), named))
    if value is None or isinstance(value, bool | str | list):
        return
    above, least, most = metadata.get("above"), metadata.get("at_least"), metadata.get("at_most")
    low = (above is not None and value <= above) or (least is not None and value < least)
    if low or (most is not None and value > most):
        percent = f"; {value:g} % is {value / 100:g}" if most == 1 and 1 < value <= 100 else ""
        yield Fault(key, value, f"must be {range_in_words(above, least, most)}{percent}")


def _between(cells: Sequence[Config]) -> Iterator[Fault]:
    """What must be equal over a grid: it is one study, over one store, decided by one rule."""
    if not cells:
        yield Fault("study.grids", [], "comes to no cell at all")
        return
    first = cells[0]
    for name in SHARED:
        yield from _equal(f"study.{name}", [getattr(cell.study, name) for cell in cells])
    for name in ("max_jobs", "max_requeues", "max_parallel", "warn_s", "nodes_submit"):
        yield from _equal(f"cluster.{name}", [getattr(cell.cluster, name) for cell in cells])
    for section in ("store", "verdict"):
        for field in dataclasses.fields(getattr(first, section)):
            yield from _equal(f"{section}.{field.name}", [getattr(getattr(cell, section), field.name) for cell in cells])


def _equal(key: str, values: Sequence[Any]) -> Iterator[Fault]:
    distinct = list(dict.fromkeys(str(plain(value)) for value in values))
    if len(distinct) > 1:
        yield Fault(key, ", ".join(distinct[:5]), "can't be swept: a study has one")
