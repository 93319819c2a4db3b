"""The table of a study at one moment: a row a cell, one glyph a stage, and a legend; in as many columns as there are."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from qup.launch.status import StudyStatus
from qup.pipeline import KINDS
from qup.study import Cell

OTHERS = "another study's"
"""A stage that another study's job makes."""
GLYPHS = {
    "failed": ("X", "bold red"),
    "lost": ("?", "red"),
    "cancelled": ("c", "red"),
    "blocked": ("-", "dim"),
    "held": ("h", "yellow"),
    "waiting": ("·", "dim"),
    "queued": ("q", "yellow"),
    OTHERS: ("o", "cyan"),
    "running": (">", "cyan"),
    "stored": ("✓", "green"),
}
"""State → what stands for it, and its style; the worst state first."""
WORST = tuple(GLYPHS)
QUIET = {"stored", "waiting", "queued", "blocked"}
IN_ASCII = str.maketrans("✓·…—", "+.~-")
LEAST_LABEL = 12
"""Columns that a cell's label has at the least."""


@dataclass(frozen=True)
class _Row:
    number: str
    label: str
    states: dict[str, str]
    """Stage kind → the worst state of the cell's stages of that kind."""


def show_states(seen: StudyStatus, width: int, height: int | None = None, *, in_ascii: bool = False) -> Text:
    """Lines of at most `width` columns: how many stages are in each state, a row a cell, what letters and glyphs mean.

    Where there is no room for all cells in `height` lines, those that run or ended badly come first, and the rest is counted.
    """
    rows = [_Row(str(number), cell.label, _states(seen, cell)) for number, cell in enumerate(seen.study.cells)]
    kinds = [kind for kind in KINDS if any(kind in row.states for row in rows)]
    letters = {kind: chr(ord("a") + place) for place, kind in enumerate(kinds)}
    met = {state for row in rows for state in row.states.values()}
    head = _folded([seen.study.name, *_counted(seen)], width)
    legend = _folded([f"{letter} {kind}" for kind, letter in letters.items()], width)
    legend += _folded([f"{GLYPHS[state][0]} {state}" for state in reversed(WORST) if state in met], width)
    hidden = 0
    if height is not None and len(rows) > (room := max(1, height - len(head) - len(legend) - 2)):
        rows.sort(key=lambda row: QUIET.issuperset(row.states.values()))
        hidden = len(rows) - room
        rows = sorted(rows[:room], key=lambda row: int(row.number))
    lines = [*map(Text, head), *_table(rows, letters, width)]
    if hidden:
        lines.append(Text(f"… {hidden} more cells", style="dim"))
    shown = Text("\n").join([*lines, *(Text(line, style="dim") for line in legend)])
    shown.no_wrap = True
    if in_ascii:
        shown.plain = shown.plain.translate(IN_ASCII)
    return shown


def _states(seen: StudyStatus, cell: Cell) -> dict[str, str]:
    found: dict[str, str] = {}
    for status in seen.of_cell(cell):
        state = OTHERS if status.shared else status.state
        found[status.ref.kind] = min(state, found.get(status.ref.kind, state), key=WORST.index)
    return found


def _counted(seen: StudyStatus) -> list[str]:
    counts = Counter(status.state for status in seen.stages.values())
    return [
        f"{len(seen.study.cells)} cells",
        f"{len(seen.stages)} stages:",
        *(f"{counts[state]} {state}" for state in reversed(WORST) if counts[state]),
    ]


def _folded(parts: Iterable[str], width: int) -> list[str]:
    """Parts in lines; no part is cut in two unless it is wider than a line."""
    whole = "  ".join(part.replace(" ", "\xa0") for part in parts)
    return [line.replace("\xa0", " ") for line in textwrap.wrap(whole, width, break_on_hyphens=False)]


def _table(rows: Sequence[_Row], letters: dict[str, str], width: int) -> list[Text]:
    """A heading of letters, and the rows under it; glyphs stand apart where there is room."""
    longest = max([cell_len(row.label) for row in rows], default=0)
    numbers = max([len(row.number) for row in rows], default=1)
    for gap in (" ", ""):
        room = width - numbers - 2 - len(letters) * (1 + len(gap))
        if room >= longest:
            break
    label = min(longest, max(LEAST_LABEL, room))
    made = [Text(f"{'#':>{numbers}} {'cell':<{label}} {gap.join(letters.values())}", style="dim")]
    for row in rows:
        line = Text(f"{row.number:>{numbers}} {_shortened(row.label, label)} ")
        for place, kind in enumerate(letters):
            line.append(gap if place else "")
            line.append(*GLYPHS[row.states[kind]] if kind in row.states else " ")
        made.append(line)
    return made


def _shortened(label: str, columns: int) -> str:
    """Padded, or with its middle left out: what tells cells apart stands at the ends."""
    if cell_len(label) <= columns:
        return set_cell_size(label, columns)
    ahead = columns // 2
    return f"{set_cell_size(label, ahead)}…{set_cell_size(label[::-1], columns - ahead - 1)[::-1]}"
