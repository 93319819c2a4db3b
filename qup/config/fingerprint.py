"""Plain forms of typed settings and their digests.

A stage's identity is the digest of `fields(view)`: every setting that changes the result and none that is
`runtime`. `plain` and `build` carry a view or a cell through a job file and back.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from qup.errors import ConfigError, Fault

T = TypeVar("T")


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Field name → resolved type of a dataclass, in order."""
    resolved = typing.get_type_hints(cls)
    return {field.name: resolved[field.name] for field in dataclasses.fields(cls)}


@functools.cache
def _names(cls: type, runtime: bool) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls) if runtime or not field.metadata.get("runtime"))


def fields(obj: Any) -> Any:
    """JSON-able form of `obj` without `runtime` fields, at every depth: what changes the result."""
    return _reduce(obj, runtime=False)


def plain(obj: Any) -> Any:
    """JSON-able form of `obj` with all its fields; `build` reads it back."""
    return _reduce(obj, runtime=True)


def _reduce(obj: Any, *, runtime: bool) -> Any:
    if obj is None or isinstance(obj, str | bool | int | float):
        return obj
    if isinstance(obj, Mapping):
        return {str(key): _reduce(value, runtime=runtime) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_reduce(item, runtime=runtime) for item in obj]
    if dataclasses.is_dataclass(obj):
        names = _names(typing.cast(type, type(obj)), runtime)
        return {name: _reduce(getattr(obj, name), runtime=runtime) for name in names}
    raise TypeError(f"{type(obj).__name__} has no place in a configuration")


def digest(value: Any) -> str:
    """sha256 in hex of the canonical JSON of a plain value; dict order does not count. ValueError on NaN and infinity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def build(cls: type[T], value: Any, *, at: str = "") -> T:
    """The dataclass `cls` from its plain form; fields left out take their defaults.

    Raises ConfigError naming every unknown field, missing field and value of a wrong type under `at`.
    """
    faults: list[Fault] = []
    made = _convert(cls, value, at, faults)
    if faults:
        raise ConfigError(faults)
    return typing.cast(T, made)


def _convert(kind: Any, value: Any, at: str, faults: list[Fault]) -> Any:
    if kind is Any:
        return value
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(typing.get_args(kind), value, at, faults)
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(typing.cast(type, kind), value, at, faults)
    if origin is dict and isinstance(value, Mapping):
        inner = typing.get_args(kind)[1]
        return {str(key): _convert(inner, item, _join(at, str(key)), faults) for key, item in value.items()}
    if origin is list and isinstance(value, list | tuple):
        inner = typing.get_args(kind)[0]
        return [_convert(inner, item, f"{at}[{i}]", faults) for i, item in enumerate(value)]
    if origin is tuple and isinstance(value, list | tuple):
        inners = typing.get_args(kind)
        kinds = [inners[0]] * len(value) if inners[1:] == (Ellipsis,) else list(inners)
        if len(kinds) == len(value):
            return tuple(_convert(inner, item, f"{at}[{i}]", faults) for i, (inner, item) in enumerate(zip(kinds, value, strict=True)))
    elif fits(kind, value):
        return float(value) if kind is float else value
    faults.append(Fault(at, value, f"must be {describe(kind)}"))
    return value


def _convert_union(kinds: tuple[Any, ...], value: Any, at: str, faults: list[Fault]) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    for kind in kinds[:-1]:
        trial: list[Fault] = []
        made = _convert(kind, value, at, trial)
        if not trial:
            return made
    return _convert(kinds[-1], value, at, faults)


def _convert_dataclass(cls: type, value: Any, at: str, faults: list[Fault]) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        faults.append(Fault(at, value, f"must be {describe(cls)}"))
        return value
    kinds = hints(cls)
    before = len(faults)
    for name in value:
        if name not in kinds:
            faults.append(Fault(_join(at, str(name)), value[name], f"unknown; {cls.__name__} has {', '.join(kinds)}"))
    given = {name: _convert(kinds[name], item, _join(at, name), faults) for name, item in value.items() if name in kinds}
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in given:
            faults.append(Fault(_join(at, field.name), None, "is required"))
    return cls(**given) if len(faults) == before else value


def fits(kind: Any, value: Any) -> bool:
    """Whether a scalar is of this type, as JSON has types: a whole number is a float too, a bool is no number."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(kind, type) and isinstance(value, kind)


def describe(kind: Any) -> str:
    """A type in words, for messages and the reference."""
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        type(None): "null",
        Any: "anything",
    }
    if kind in words:
        return words[kind]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(one) for one in inner)
    if origin is list or origin is tuple:
        return f"a list ({describe(inner[0])} each)"
    if origin is dict:
        return f"a mapping ({describe(inner[1])} each)"
    return f"a mapping ({kind.__name__})"


def finite(value: Any) -> bool:
    """False for NaN and infinity; True for everything else."""
    return not isinstance(value, float) or math.isfinite(value)


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
