"""`qup schema`: JSON schemas with which editors complete and check the YAML files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from qup.config.jsonschema import ROOT, schemas
from qup.config.keys import one_of
from qup.errors import InputError


def show_schema(name: str | None, to: Path | None, console: Console) -> int:
    """Prints the schema of one section, of files with `# @package _global_` where none is named, or writes all into a folder."""
    made = schemas()
    if name is not None and name not in made:
        raise InputError(f"{name}: there is no such schema; {one_of(name, made)}")
    if to is None:
        print(json.dumps(made[name or ROOT], indent=1))
        return 0
    written = write_schemas(to, [name] if name else list(made))
    console.print(f"{len(written)} schemas in {to}; a comment at the top of a file of conf/GROUP names its own:")
    console.print(f"# yaml-language-server: $schema=../../{to.name}/{ROOT}.json", markup=False)
    return 0


def write_schemas(folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Writes the schemas of these names, by default all, as NAME.json; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, schema in schemas().items():
        if names is None or name in names:
            path = folder / f"{name}.json"
            path.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
            written.append(path)
    return written
