"""What failed in a study, and why, as its jobs noted it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from qup.analysis.results.shelf import Shelf
from qup.files import tail
from qup.study import Study

TAIL_LINES, TAIL_BYTES = 15, 16_384
"""How much of a job's output is shown, and read."""


@dataclass(frozen=True)
class Failure:
    """A stage that has no result because its last run failed."""

    stage: str
    key: str
    label: str
    """The cell it ran for."""
    why: str
    tail: str
    """The end of its job's output; "" where there is none."""
    cells: tuple[str, ...]
    """All cells that need it."""


def failures(study: Study, shelf: Shelf) -> list[Failure]:
    """Every recorded failure whose stage is not in the store by now, in the order of stage and key."""
    users: dict[tuple[str, str], list[str]] = {}
    for cell in study.cells:
        for ref in cell.ordered():
            users.setdefault((ref.kind, ref.key), []).append(cell.label)
    made = []
    for path in sorted((study.folder / "failed").glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            stage, key = record["ref"]
            why = str(record["error"]).strip()
        except (OSError, ValueError, KeyError, TypeError) as error:
            shelf.corrupt[f"failed/{path.name}"] = f"no record of a failure ({error!r})"
            continue
        if (stage, key) not in users or shelf.get(stage, key) is not None:
            continue
        said = tail(study.folder / "logs" / f"{stage}-{key}.log", TAIL_BYTES).splitlines()
        output = str(record.get("output") or "") or "\n".join(said[-TAIL_LINES:]).strip()
        made.append(Failure(stage, key, str(record.get("label", "")), why, output, tuple(users[stage, key])))
    return made
