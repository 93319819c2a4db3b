"""An index page over all studies of a folder: name, date, arms, answer, and a link to the report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from qup.analysis.page.render import TEMPLATES, environment
from qup.files import write_text


@dataclass(frozen=True)
class Entry:
    name: str
    day: str
    """Of its last result; "" where none is known."""
    cells: str
    arms: tuple[str, ...]
    lines: tuple[str, ...]
    """Its answers, or why there are none."""
    failures: int
    link: str
    """To its report, from where the index lies; "" where it has none."""


def write_index(folders: Sequence[Path], page: Path) -> Path:
    """Writes the index of studies, the youngest first, from what their reports told programs; returns its path."""
    entries = sorted((_entry(folder, page.parent) for folder in folders), key=lambda one: (one.day, one.name), reverse=True)
    css = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    text = environment().get_template("index.html.j2").render(entries=entries, css=css)
    write_text(page, text)
    return page


def _entry(folder: Path, base: Path) -> Entry:
    out = next((place for place in (base / folder.name, folder / "report") if (place / "summary.json").exists()), folder / "report")
    report = out / "report.html"
    try:
        told: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        lines = tuple(str(line) for line in told["told"])
        stamp, cells, missing = told["finished"], int(told["cells"]), len(told["missing"])
        arms, failed = tuple(map(str, told["arm_names"])), len(told["failures"])
    except OSError:
        return Entry(folder.name, "", "", (), (f"No report yet: qup report {folder.name}",), 0, "")
    except (ValueError, KeyError, TypeError):
        return Entry(
            folder.name, "", "", (), (f"Its report was written by an older qup: qup report {folder.name}",), 0, _link(report, base)
        )
    day = datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d") if stamp is not None else ""
    return Entry(folder.name, day, f"{cells - missing} of {cells}", arms, lines, failed, _link(report, base))


def _link(report: Path, base: Path) -> str:
    if not report.exists():
        return ""
    return Path(os.path.relpath(report, base)).as_posix()
