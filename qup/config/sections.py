"""One top-level section of a cell: what the chosen files say of it, with value overrides applied.

Sections don't refer to each other (conf/ has no interpolations), so each is merged by itself and kept: a grid of
thousands of cells has a few dozen distinct sections. OmegaConf does every merge and every conversion, so the result
is what Hydra would compose.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qup.config.fingerprint import build, describe, hints
from qup.config.keys import Place, bare, locate, unknown_key
from qup.config.mutable import mutable
from qup.config.schema import Config
from qup.errors import ConfigError, Fault


@dataclass(frozen=True)
class Piece:
    """What one file says of one section: `root` holds that section alone."""

    origin: str
    root: DictConfig


BROKEN: Any = object()
"""Stands for a section that comes to nothing that could be judged."""


@dataclass(frozen=True)
class Section:
    """A section as composed from files: OmegaConf's form, and the frozen one."""

    name: str
    root: DictConfig
    value: Any
    """What its sound parts come to; BROKEN where that is nothing whole, or where it has an interpolation."""
    faults: tuple[Fault, ...] = ()
    interpolated: bool = False
    """Some value refers to another one, so the section can't be composed by itself."""
    lost: tuple[str, ...] = ()
    """Entries that an experiment changes of a choice that is no longer made; they are left out."""


def merge(name: str, pieces: Sequence[Piece]) -> Section:
    """The pieces of a section, merged in the order of the defaults list."""
    root = OmegaConf.create({})
    faults: list[Fault] = []
    merged = [_merge_into(name, root, piece, faults) for piece in pieces]
    OmegaConf.set_struct(root, True)
    interpolated = _has_interpolation(OmegaConf.to_container(root, resolve=False))
    if interpolated or not all(merged):
        return Section(name, root, BROKEN, tuple(faults), interpolated)
    value, more = _frozen(name, root)
    return Section(name, root, value, (*faults, *more))


def _merge_into(name: str, root: DictConfig, piece: Piece, faults: list[Fault]) -> bool:
    """Merges all of the piece that can be, and tells of all that can't; False where nothing could be left out to go on."""
    while True:
        try:
            root.merge_with(piece.root)
            return True
        except OmegaConfBaseException as error:
            faults.append(_merge_fault(error, name, piece.origin))
            key = error.full_key or ""
            if OmegaConf.select(piece.root, key.rpartition(".")[0] or "-") is None:
                return False
            piece = without(piece, [key])


def lost_entries(piece: Piece, was: DictConfig, now: DictConfig) -> list[str]:
    """Keys of the entries that the piece changes, `was` has and `now` has not.

    An experiment that makes a benchmark smaller was written over a choice that has that benchmark; where another
    choice is made, without it, the change would make a benchmark of itself.
    """
    value, before, after = (OmegaConf.to_container(root, resolve=False) for root in (piece.root, was, now))
    return list(_lost(value, before, after, ""))


def without(piece: Piece, keys: Sequence[str]) -> Piece:
    """The piece without these entries."""
    if not keys:
        return piece
    root = copy.deepcopy(piece.root)
    for key in keys:
        path, _, name = key.rpartition(".")
        del OmegaConf.select(root, path)[name]
    return Piece(piece.origin, root)


def _lost(value: Any, was: Any, now: Any, at: str) -> Iterator[str]:
    if not (isinstance(value, dict) and isinstance(was, dict) and isinstance(now, dict)):
        return
    for name, inner in value.items():
        section = isinstance(was.get(name), dict)
        if was.get(name) is not None and now.get(name) is None and (section or name not in now):
            yield f"{at}{name}"
        else:
            yield from _lost(inner, was.get(name), now.get(name), f"{at}{name}.")


def override(section: Section, overrides: Sequence[Override]) -> tuple[Any, list[Fault]]:
    """The frozen section with those value overrides applied, in order, that can be; and the faults of the others."""
    faults: list[Fault] = []
    kept = []
    for one in overrides:
        wrong = misplaced(one) or _reworded(one)
        faults += wrong
        kept += [] if wrong else [one]
    overrides = kept
    if all(_is_simple(one) for one in overrides):
        value = section.value
        wrong = []
        for one in overrides:
            value = _replaced(value, one.key_or_group.split(".")[1:], one, wrong)
        if value is not _MISSED:
            return value, faults + wrong
    root = copy.deepcopy(section.root)
    for one in overrides:
        try:
            ConfigLoaderImpl._apply_overrides_to_config([one], root)
        except (HydraException, OmegaConfBaseException, AttributeError, AssertionError) as error:
            faults += _unreachable(section.value, one) or [_override_fault(error, one)]
    value, more = _frozen(section.name, root)
    return value, faults or more


def misplaced(one: Override) -> list[Fault]:
    """Faults of an override that names a key which can't exist; in a mapping, every key is looked at."""
    if one.package is not None:
        return [Fault(one.key_or_group, one.value(), "is not a config group, so it takes no @package")]
    return _misplaced(one.key_or_group, one.value())


def _reworded(one: Override) -> list[Fault]:
    """The fault of a text that Hydra's grammar reads as a number or a truth value, and that would come out as another text."""
    value, place = one.value(), locate(one.key_or_group)
    if isinstance(place, str) or bare(place.kind) is not str or not isinstance(value, int | float) or one.is_delete():
        return []
    typed = one.get_value_string()
    if str(value) == typed:
        return []
    return [Fault(one.key_or_group, typed, f"is read as {value!r}; quotes keep the text: \"{one.key_or_group}='{typed}'\"")]


def _misplaced(key: str, value: Any) -> list[Fault]:
    place = locate(key)
    if isinstance(place, str):
        return [unknown_key(key, value, place)]
    if isinstance(value, dict) and place.kind is not Any:
        return [fault for name, inner in value.items() for fault in _misplaced(f"{key}.{name}", inner)]
    return []


def _unreachable(value: Any, one: Override) -> list[Fault]:
    """Faults of an override whose path leads through null or through an entry that isn't there."""
    path = one.key_or_group.split(".")
    for depth, word in enumerate(path[1:], start=2):
        at, last = ".".join(path[: depth - 1]), depth == len(path)
        if isinstance(value, dict):
            typed = dataclasses.is_dataclass(_kind(".".join(path[:depth])))
            if word not in value and (typed or not (last and (one.is_add() or one.is_force_add()))):
                there = ", ".join(map(str, value)) or "nothing"
                return [Fault(one.key_or_group, one.value(), f"{at} has no {word!r} but {there}; +{at}={{{word}: {{…}}}} adds it")]
            value = value.get(word)
        elif dataclasses.is_dataclass(value):
            value = getattr(value, word)
        else:
            break
        if value is None and (not last or isinstance(one.value(), dict)):
            at = ".".join(path[:depth])
            if dataclasses.is_dataclass(_kind(at)):
                return [Fault(one.key_or_group, one.value(), f"{at} is null here; {_SETS.get((path[0], word), path[0] + '=')} sets it")]
    return []


def _kind(key: str) -> Any:
    place = locate(key)
    return bare(place.kind) if isinstance(place, Place) else None


_SETS = {
    ("problems", "lab"): "problems=lab",
    ("model", "lab"): "model=lab_foreign or lab_familiar",
    ("trainer", "lora"): "lora=r16",
    ("evaluation", "lab"): "evaluation=lab",
    ("reward", "lab"): "reward=[lab_outcome,lab_steps]",
}
"""Choices that set an optional section; Hydra can't set one from the command line."""

_MISSED: Any = object()


def _is_simple(one: Override) -> bool:
    """key=scalar or key=[…] on a field of a dataclass; all else is left to OmegaConf."""
    if one.type != OverrideType.CHANGE:
        return False
    value = one.value()
    place = locate(one.key_or_group)
    if not isinstance(place, Place) or place.owner is None or isinstance(value, dict):
        return False
    kind = bare(place.kind)
    if dataclasses.is_dataclass(kind) or typing.get_origin(kind) is dict:
        return False
    return not _has_interpolation(value) and value != "???"


def _replaced(value: Any, path: list[str], one: Override, faults: list[Fault]) -> Any:
    """`value` with the override's conversion at `path`; _MISSED where the path leads through null or a missing entry."""
    if value is _MISSED:
        return _MISSED
    if not path:
        converted, fault = _converted(Config, one.key_or_group, one.key_or_group, repr(one.value()), _Held(one.value()))
    elif isinstance(value, dict):
        if path[0] not in value:
            return _MISSED
        inner = _replaced(value[path[0]], path[1:], one, faults)
        return inner if inner is _MISSED else {**value, path[0]: inner}
    elif not dataclasses.is_dataclass(value):
        return _MISSED
    elif len(path) > 1:
        inner = _replaced(getattr(value, path[0]), path[1:], one, faults)
        return inner if inner is _MISSED else dataclasses.replace(typing.cast(Any, value), **{path[0]: inner})
    else:
        converted, fault = _converted(typing.cast(type, type(value)), path[0], one.key_or_group, repr(one.value()), _Held(one.value()))
        if fault is None:
            return dataclasses.replace(typing.cast(Any, value), **{path[0]: converted})
    if fault is not None:
        faults.append(fault)
        return value
    return converted


class _Held:
    """A value that takes no part in a cache's key: `repr` beside it does."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@functools.cache
def _converted(owner: type, name: str, key: str, text: str, held: _Held) -> tuple[Any, Fault | None]:
    """A value as OmegaConf would hold it in this field; once for each distinct one."""
    node = _field_alone(owner, name)
    try:
        OmegaConf.update(node, name, held.value, merge=True)
        plain = OmegaConf.to_container(node, throw_on_missing=False)
        return typing.cast(dict[str, Any], plain)[name], None
    except OmegaConfBaseException:
        return None, Fault(key, held.value, f"must be {describe(hints(owner)[name])}{_percent(held.value)}")


def _percent(value: Any) -> str:
    """What a percentage is as a number; '' for anything else."""
    given = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    return f"; {value} is {float(given[1]) / 100:g}" if given else ""


@functools.cache
def _field_alone(owner: type, name: str) -> DictConfig:
    """A node with this one field of the dataclass."""
    of = mutable(owner)
    field = next(field for field in dataclasses.fields(of) if field.name == name)
    made = (
        dataclasses.field(default=field.default)
        if field.default_factory is dataclasses.MISSING
        else dataclasses.field(default_factory=field.default_factory)
    )
    node: DictConfig = OmegaConf.structured(dataclasses.make_dataclass(of.__name__, [(name, hints(of)[name], made)]))
    return node


def _frozen(name: str, root: DictConfig) -> tuple[Any, list[Fault]]:
    try:
        plain = typing.cast(dict[str, Any], OmegaConf.to_container(root, resolve=True, throw_on_missing=True))
        return getattr(build(Config, plain), name), []
    except ConfigError as error:
        return BROKEN, list(error.faults)
    except OmegaConfBaseException as error:
        return BROKEN, [Fault(getattr(error, "full_key", None) or name, "???", _first_line(error))]


def _merge_fault(error: OmegaConfBaseException, section: str, origin: str) -> Fault:
    key = error.full_key or section
    value = error.value if error.value is not None else ""
    place = locate(key)
    if isinstance(place, str):
        fault = unknown_key(key, value, place)
        return Fault(fault.key, fault.value, f"{fault.valid} (in conf/{origin}.yaml)")
    return Fault(key, value, f"must be {describe(place.kind)} (in conf/{origin}.yaml)")


def _override_fault(error: Exception, one: Override) -> Fault:
    place = locate(one.key_or_group)
    assert isinstance(place, Place)
    if one.is_delete():
        return Fault(f"~{one.key_or_group}", one.value(), "only entries of a mapping can be left out")
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and "not in struct" not in str(cause):
        key = cause.full_key or one.key_or_group
        inner = locate(key)
        if not isinstance(inner, Place):
            return Fault(one.key_or_group, one.value(), f"must be {describe(place.kind)}")
        return Fault(key, one.value(), f"must be {describe(inner.kind)}")
    if one.is_add():
        return Fault(f"+{one.key_or_group}", one.value(), "is there already; leave the + out")
    return Fault(one.key_or_group, one.value(), f"is closed here; +{one.key_or_group}= adds to it")


def _has_interpolation(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_interpolation(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_interpolation(item) for item in value)
    return isinstance(value, str) and "${" in value


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
