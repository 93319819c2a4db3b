"""Anyone's traces by problem id: the file of source=file."""

from __future__ import annotations

from pathlib import Path

from qup.config.schema import Source
from qup.errors import Fault, InputError
from qup.formats import read_local


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
