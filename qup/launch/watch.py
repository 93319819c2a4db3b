"""How a study stands, on the console: a row a cell, a column a stage; once, or until the study ends."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from qup.launch.pace import ASK_S, Pace
from qup.launch.slurm.commands import Slurm
from qup.launch.slurm.site import on_slurm
from qup.launch.status import FORGOTTEN, StageStatus, StudyStatus, study_status
from qup.pipeline import KINDS
from qup.study import Study

WATCHED_S = 5.0
"""Longest time between two looks where somebody watches."""

STYLES = {
    "stored": ("✓", "green"),
    "running": ("running", "cyan"),
    "queued": ("queued", "yellow"),
    "held": ("held", "yellow"),
    "failed": ("FAILED", "bold red"),
    "cancelled": ("cancelled", "red"),
    "lost": ("lost", "red"),
    "blocked": ("blocked", "dim"),
    "waiting": ("waiting", "dim"),
}
WORST = ("failed", "lost", "cancelled", "blocked", "held", "waiting", "queued", "running", "stored")

MOST_NOTES = 40


def _columns(seen: StudyStatus) -> list[str]:
    there = {ref.kind for ref in seen.stages}
    return [kind for kind in KINDS if kind in there]


def _cell_text(statuses: list[StageStatus]) -> Text:
    if not statuses:
        return Text("")
    worst = min(statuses, key=lambda status: WORST.index(status.state))
    word, style = STYLES[worst.state]
    same = sum(1 for status in statuses if status.state == worst.state)
    text = f"{word}*" if worst.shared else word
    if len(statuses) > 1 and worst.state != "stored":
        text += f" {same}/{len(statuses)}"
    if worst.state == "running" and worst.detail:
        text += f" {worst.detail.partition(',')[0]}"
    return Text(text, style=style)


def show_states(seen: StudyStatus, width: int) -> Table:
    """The table of a study at one moment."""
    table = Table(box=None, header_style="dim", pad_edge=False, title=seen.study.name, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("cell", no_wrap=True)
    columns = _columns(seen)
    for kind in columns:
        table.add_column(kind if width > 120 else kind[:9], overflow="fold")
    for number, cell in enumerate(seen.study.cells):
        by_kind: dict[str, list[StageStatus]] = {}
        for status in seen.of_cell(cell):
            by_kind.setdefault(status.ref.kind, []).append(status)
        table.add_row(str(number), cell.label, *(_cell_text(by_kind.get(kind, [])) for kind in columns))
    return table


def notes(seen: StudyStatus) -> list[str]:
    """What went wrong or waits, in words: the worst first, a line a stage, and one for stages cancelled or lost for the same reason."""
    lines = [f"the queue could not be asked: {seen.slurm}"] if seen.slurm else []
    lines += [seen.driver] if seen.driver else []
    told: list[StageStatus] = []
    alike: dict[tuple[str, str], list[StageStatus]] = {}
    for status in seen.stages.values():
        if status.state == "cancelled" or status.detail == FORGOTTEN:
            alike.setdefault((status.state, status.detail), []).append(status)
        elif status.state in ("failed", "lost", "held") or (
            status.state == "queued" and status.detail not in ("Dependency", "Priority", "Resources", "None")
        ):
            told.append(status)
    told.sort(key=lambda status: WORST.index(status.state))
    lines += [_note(status) for status in told[:MOST_NOTES]]
    if len(told) > MOST_NOTES:
        lines.append(f"… and {len(told) - MOST_NOTES} more; --json has all")
    for (state, why), statuses in alike.items():
        lines.append(_note(statuses[0]) if len(statuses) == 1 else f"{state} {len(statuses)} stages: {why}")
    return lines


def _note(status: StageStatus) -> str:
    job = f" (job {status.job})" if status.job else ""
    return f"{status.state:<9} {status.ref}{job}: {status.detail}"


def watch(folder: Path, console: Console) -> int:
    """Shows the study until nothing more happens; exit status 0 where every result is there."""
    slurm = Slurm() if on_slurm(folder) else None
    pace = Pace(Study.load(folder), WATCHED_S if console.is_terminal else ASK_S)
    last = ""
    with Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext() as live:
        while True:
            seen = study_status(folder, slurm)
            if live is not None:
                live.update(show_states(seen, console.width), refresh=True)
            elif (text := summary(seen)) != last:
                console.print(text, highlight=False, soft_wrap=True)
                last = text
            if seen.ended() and not seen.slurm:
                return 0 if seen.good() else 1
            pace.pause()


def summary(seen: StudyStatus) -> str:
    """Counts by state."""
    counts: dict[str, int] = {}
    for status in seen.stages.values():
        counts[status.state] = counts.get(status.state, 0) + 1
    return f"{seen.study.name}: " + ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
