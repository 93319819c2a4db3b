"""Anyone's traces by problem id: the file of source=file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from qup.config.schema import Source
from qup.data.formats import read_local
from qup.errors import Fault, InputError


def read_traces(source: Source) -> tuple[list[str], list[str]]:
    """Ids (as strings) and texts of `source.path`; raises InputError naming the file, the row and the column."""
    found = read_local(Path(source.path), [source.id, source.text], split="train")
    for column, setting in ((source.id, "source.id"), (source.text, "source.text")):
        if found.values and column not in found.columns:
            raise InputError(f"{source.path}: no column {column!r} ({setting}); it has {', '.join(sorted(found.columns))}")
    ids, texts = [], []
    for number, entry in zip(found.numbers, found.values, strict=True):
        identity, text = entry[source.id], entry[source.text]
        if identity is None or not isinstance(text, str):
            raise InputError(
                f"{source.path}, row {number}: {source.id} and {source.text} have to be an id and a text, "
                f"found {identity!r} and {type(text).__name__}"
            )
        ids.append(str(identity))
        texts.append(text.encode("utf-8", "replace").decode())
    return ids, texts


def check_traces(source: Source, key: str) -> list[Fault]:
    """What is wrong with the file of source=file, without heavy imports; `key` is where `source` stands."""
    try:
        ids, _ = read_traces(source)
    except InputError as error:
        return [Fault(f"{key}.path", source.path, str(error))]
    return [] if ids else [Fault(f"{key}.path", source.path, "the file holds no trace")]


def check_ids(source: Source, key: str, ids: Collection[str]) -> tuple[list[Fault], str]:
    """Whether the traces belong to problems of these ids: a fault where none does, else what to say of those that don't."""
    try:
        given, _ = read_traces(source)
    except InputError:
        return [], ""
    known = set(ids)
    unknown = [identity for identity in given if identity not in known]
    if not unknown or not known:
        return [], ""
    if len(unknown) == len(given):
        example = (
            f"none of its {len(given)} ids (such as {given[0]!r} in column {source.id!r}) is a problem's id, such as {next(iter(ids))!r}"
        )
        return [Fault(f"{key}.path", source.path, f"{example}; see {key}.id and problems.id")], ""
    return [], f"{key}.path={source.path}: {len(unknown)} of {len(given)} traces belong to no problem (such as id {unknown[0]!r})"
