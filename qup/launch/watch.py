"""How a study stands, on the console: its table and what is to be said beside it; once, or until the study ends."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from qup.launch.console import in_ascii
from qup.launch.pace import ASK_S, Pace
from qup.launch.slurm.commands import Slurm
from qup.launch.slurm.site import on_slurm
from qup.launch.states import WORST, show_states
from qup.launch.status import FORGOTTEN, StageStatus, StudyStatus, study_status
from qup.study import Study

WATCHED_S = 5.0
"""Longest time between two looks where somebody watches."""

MOST_NOTES = 40
MOST_RUNNING = 8


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


def at_work(seen: StudyStatus) -> list[str]:
    """How far the stages are that run, a line each, with the first cell that each is for."""
    running = [status for status in seen.stages.values() if status.state == "running"]
    first = {stage.ref: cell.label for cell in reversed(seen.study.cells) for stage in cell.refs()}
    lines = [f"running {status.ref.kind} {first.get(status.ref, '')}: {status.detail}" for status in running[:MOST_RUNNING]]
    return lines + ([f"… and {len(running) - MOST_RUNNING} more run"] if len(running) > MOST_RUNNING else [])


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
                live.update(_screen(seen, console), refresh=True)
            elif (text := summary(seen)) != last:
                console.print(text)
                last = text
            if seen.ended() and not seen.slurm:
                return 0 if seen.good() else 1
            pace.pause()


def _screen(seen: StudyStatus, console: Console) -> Group:
    """What fits a terminal, all of it in lines that don't wrap."""
    lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in at_work(seen)]
    room = max(8, console.height - len(lines) - 1)
    return Group(show_states(seen, console.width, room, in_ascii=in_ascii(console)), *lines)


def summary(seen: StudyStatus) -> str:
    """Counts by state."""
    counts: dict[str, int] = {}
    for status in seen.stages.values():
        counts[status.state] = counts.get(status.state, 0) + 1
    return f"{seen.study.name}: " + ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
