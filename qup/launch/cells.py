"""Finding a cell by what a person types."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from qup.errors import InputError
from qup.launch.registry import find_study, is_dry, read_study, studies_in


def find_cell(cell: str, study: str | None, shown: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """(study folder, its record, the cell's entry) for a label or a number; InputError names those there are."""
    folder = find_study(study, shown) if study else _only_study(shown, cell)
    record = read_study(folder)
    assert record is not None
    entries = record["cells"]
    if cell.isdigit() and int(cell) < len(entries):
        return folder, record, entries[int(cell)]
    for entry in entries:
        if cell == entry["label"] or cell in entry["merged"]:
            return folder, record, entry
    labels = [entry["label"] for entry in entries]
    near = difflib.get_close_matches(cell, labels, 3) or labels[:8]
    raise InputError(f"cell {cell!r}: not in study {record['name']}; near: {', '.join(near)} (or a number below {len(labels)})")


def _only_study(shown: Path, cell: str) -> Path:
    found = studies_in(shown)
    there = [entry for entry in found if not is_dry(entry)] or found
    if len(there) == 1:
        return there[0].resolve()
    holding = []
    for folder in there:
        record = read_study(folder)
        if record and any(cell == entry["label"] or cell in entry["merged"] for entry in record["cells"]):
            holding.append(folder)
    if len(holding) == 1:
        return holding[0].resolve()
    names = ", ".join(folder.name for folder in (holding or there))
    raise InputError(f"cell {cell!r}: name the study with --study; there {'are ' + names if names else 'is none'} under {shown}/")
