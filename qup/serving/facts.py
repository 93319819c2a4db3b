"""Which server worked for a stage: left behind in its work folder by whoever asked it, read when the manifest is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qup.files import read_json, write_text

FILE = "served.json"


def note(folder: Path, facts: dict[str, Any]) -> None:
    """Leaves behind what served."""
    write_text(folder / FILE, json.dumps(facts))


def noted(folder: Path) -> dict[str, Any]:
    """`{"served": facts}` of the last server; empty where there was none."""
    found = read_json(folder / FILE)
    return {} if found is None else {"served": found}
