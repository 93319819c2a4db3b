"""Which server worked for a stage: left behind in its work folder by whoever asked it, read when the manifest is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qup.files import write_text

FILE = "served.json"


def note(folder: Path, facts: dict[str, Any]) -> None:
    """Leaves behind what served."""
    write_text(folder / FILE, json.dumps(facts))


def noted(folder: Path) -> dict[str, Any]:
    """`{"served": facts}` of the last server; empty where there was none."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {"served": found}
