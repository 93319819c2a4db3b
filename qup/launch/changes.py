"""How a grid differs from the one that is registered under its name, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from qup.config.fingerprint import digest, fields
from qup.config.schema import Config
from qup.errors import ConfigError
from qup.pipeline.labels import cell_labels
from qup.study import Study

SHOWN = 6
"""Settings, and cells added or removed, that are named; of more there is only a count."""
WIDE = 120
"""Characters of one setting's line."""


def differences(a: Any, b: Any, at: str = "") -> list[str]:
    """Paths at which two plain values differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for name in sorted(a.keys() | b.keys()):
            path = f"{at}.{name}" if at else name
            if name not in a or name not in b:
                found.append(f"{path}: {'not there' if name not in a else 'there'} → {'not there' if name not in b else 'there'}")
            else:
                found.extend(differences(a[name], b[name], path))
        return found
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [line for i, (left, right) in enumerate(zip(a, b, strict=True)) for line in differences(left, right, f"{at}[{i}]")]
    return [] if a == b else [f"{at}: {a!r} → {b!r}"]


def grid_changes(study: Study, cells: Sequence[Config]) -> list[str]:
    """A line for each setting in which cells of one label differ, registered → launched, and for the cells added and removed.

    Only settings that change a result count, for they alone make two grids of one.
    """
    try:
        old = _by_label(study.given())
    except ConfigError:
        return ["its settings are those of another version of qup"]
    new = _by_label(cells)
    same = {digest(cell) for cell in old.values()} & {digest(cell) for cell in new.values()}
    old, new = ({label: cell for label, cell in grid.items() if digest(cell) not in same} for grid in (old, new))
    counts = Counter(line for label in old if label in new for line in differences(old[label], new[label]))
    lines = [_short(line) + (f" (in {count} cells)" if count > 1 else "") for line, count in counts.most_common(SHOWN)]
    if len(counts) > SHOWN:
        lines.append(f"… and {len(counts) - SHOWN} more settings")
    for word, one, other in (("added", new, old), ("removed", old, new)):
        labels = [label for label in one if label not in other]
        if labels:
            more = f", … and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
            lines.append(f"{word}: {', '.join(labels[:SHOWN])}{more}")
    return lines or ["no setting differs that this version of qup knows: another version registered it"]


def _by_label(cells: Sequence[Config]) -> dict[str, Any]:
    return {label: fields(cell) for label, cell in zip(cell_labels(cells), cells, strict=True)}


def _short(line: str) -> str:
    return line if len(line) <= WIDE else f"{line[: WIDE - 1]}…"
