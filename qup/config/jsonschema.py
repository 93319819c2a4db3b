"""JSON schemas of the YAML files, made from the settings' types and metadata, for editors and checkers.

A file's schema follows from where Hydra puts it: `# @package _global_` (experiments, students) is any section by name;
a file without it is the section that its group is called by; a reward model's or measure's file is one entry.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Union

from qup.config.fingerprint import hints, plain
from qup.config.keys import bare
from qup.config.schema import Config, Trainer

DRAFT = "http://json-schema.org/draft-07/schema#"
ROOT = "config"
"""Name of the schema of files with `# @package _global_`."""
NODE = "^\\$\\{.*\\}$"
"""A value that refers to another one."""


def schemas() -> dict[str, dict[str, Any]]:
    """Name → schema: `config` for files with `# @package _global_`, and one for each section, by the group's name."""
    made = {ROOT: _file(Config, "qup: sections by name", anything=("hydra",))}
    for field in dataclasses.fields(Config):
        kind = bare(hints(Config)[field.name])
        if typing.get_origin(kind) is dict:
            kind = bare(typing.get_args(kind)[1])
        if dataclasses.is_dataclass(kind):
            made[field.name] = _file(kind, f"qup: {field.metadata['help']}")
    made["lora"] = _file(bare(hints(Trainer)["lora"]), "qup: adapters")
    return made


def _file(cls: Any, title: str, anything: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of a file whose content is of this class: without a required key, and with Hydra's list of defaults."""
    made = _dataclass(cls)
    made["properties"] |= {name: {} for name in anything}
    made["properties"]["defaults"] = {
        "description": "files that this one is merged over, in order; Hydra's defaults list",
        "type": "array",
        "items": {"type": ["string", "object"]},
    }
    return {"$schema": DRAFT, "title": title, **made}


def _dataclass(cls: Any) -> dict[str, Any]:
    kinds = hints(cls)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: _setting(field, kinds[field.name]) for field in dataclasses.fields(cls)},
    }


def _setting(field: dataclasses.Field[Any], kind: Any) -> dict[str, Any]:
    metadata = field.metadata
    made = _value(kind, metadata)
    made["description"] = metadata["help"] + (" (runtime: changes no result)" if metadata.get("runtime") else "")
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    if not dataclasses.is_dataclass(default):
        made["default"] = plain(default)
    return made


def _value(kind: Any, metadata: typing.Mapping[str, Any]) -> dict[str, Any]:
    if typing.get_origin(kind) in (Union, types.UnionType):
        return {"anyOf": [_value(one, metadata) for one in typing.get_args(kind)]}
    if kind is type(None):
        return {"type": "null"}
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    origin = typing.get_origin(kind)
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(typing.get_args(kind)[1], {})}
    if origin in (list, tuple):
        return {"type": "array", "items": _value(typing.get_args(kind)[0], {})}
    if kind is Any:
        return {}
    made = _scalar(kind, metadata)
    return made if made.get("type") == "string" and "enum" not in made else {"anyOf": [made, {"type": "string", "pattern": NODE}]}


def _scalar(kind: Any, metadata: typing.Mapping[str, Any]) -> dict[str, Any]:
    names = {int: "integer", float: "number", bool: "boolean", str: "string"}
    made: dict[str, Any] = {"type": names[kind]}
    if metadata.get("choices"):
        made["enum"] = list(metadata["choices"])
    for limit, word in (("at_least", "minimum"), ("at_most", "maximum"), ("above", "exclusiveMinimum")):
        if kind in (int, float) and metadata.get(limit) is not None:
            made[word] = metadata[limit]
    return made
