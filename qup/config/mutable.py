"""The settings as Hydra can compose them: not frozen.

OmegaConf marks a frozen dataclass read-only, so that no file and no override could change it. The schema that Hydra
composes into is therefore made of mutable forms: same names, types and defaults.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, Union

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType

from qup.config.fingerprint import hints
from qup.config.schema import Config

SCHEMA = "schema"
"""Name of the mutable form of Config in Hydra's store; conf/config.yaml starts from it."""


@functools.cache
def mutable(cls: type) -> type:
    """The mutable form of a frozen dataclass, nested ones included."""
    made = []
    for field in dataclasses.fields(cls):
        kind = _mutable_type(hints(cls)[field.name])
        if dataclasses.is_dataclass(kind):
            default: Any = dataclasses.field(default_factory=typing.cast(type, kind))
        elif field.default_factory is not dataclasses.MISSING:
            default = dataclasses.field(default_factory=field.default_factory)
        else:
            default = dataclasses.field(default=field.default)
        made.append((field.name, kind, default))
    return dataclasses.make_dataclass(cls.__name__, made)


def _mutable_type(kind: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        return mutable(typing.cast(type, kind))
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return Union[tuple(_mutable_type(one) for one in inner)]  # noqa: UP007
    if origin in (dict, list):
        return origin[tuple(_mutable_type(one) for one in inner)]
    return kind


def register() -> None:
    """Puts the schema into Hydra's store; to be called before anything is composed, and harmless when repeated."""
    store = ConfigStore.instance()
    if store.get_type(f"{SCHEMA}.yaml") is ObjectType.NOT_FOUND:
        store.store(name=SCHEMA, node=mutable(Config), provider="qup")
