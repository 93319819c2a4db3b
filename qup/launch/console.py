"""The console of a launch, and what it says before anything is spent."""

from __future__ import annotations

import io
import os
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qup.launch.plan import Plan
from qup.launch.units import short, size

FILE_WIDTH = 200
"""Columns where neither a terminal nor $COLUMNS sets a width."""


def make_console() -> Console:
    """The console of this process: lines are left whole and plain; output to a file or pipe is not squeezed into 80 columns."""
    degrade()
    columns = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else int(columns) if columns.strip("0").isdigit() else FILE_WIDTH
    return Console(width=width, highlight=False, soft_wrap=True)


def in_ascii(console: Console) -> bool:
    """Whether the console has no word for characters beyond ASCII."""
    return "utf" not in console.encoding.lower()


def degrade() -> None:
    """Where the locale has no word for a character, output shows a question mark for it and goes on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def command(verb: str, study: str, shown: Path) -> str:
    """A qup command as it must be typed here to find a study that is presented in `shown`."""
    folder = "" if shown.absolute() == Path("multirun").absolute() else f"--dir {shlex.quote(os.path.relpath(shown))} "
    return f"qup {folder}{verb} {study}"


def show_plan(plan: Plan, console: Console) -> None:
    """What will be spent, before it is."""
    totals = plan.totals()
    unneeded = totals["stages"] - totals["stored"] - totals["to_run"]
    parts = [
        f"{totals['cells']} cell{'s' if totals['cells'] != 1 else ''} → {totals['stage_runs']} stage runs",
        f"{totals['stages']} distinct",
        f"{totals['stored']} stored",
        f"{totals['to_run']} to run",
        *([f"{unneeded} not needed"] if unneeded else []),
        _worked("GPU", totals["gpu_hours"]),
        _worked("CPU", totals["cpu_hours"]),
        f"{size(totals['disk_bytes'])} of disk",
        f"{totals['oracle_usd']:.2f} oracle dollars",
    ]
    console.print(f"[bold]{escape(plan.study)}[/]  {', '.join(parts)}")
    merged = [f"{', '.join(cell.merged)} = {cell.label}" for cell in plan.graph.cells if cell.merged]
    for line in merged[:10]:
        console.print(f"merged, for they come to the same stages: {line}")
    if len(merged) > 10:
        console.print(f"… and {len(merged) - 10} more merged")
    for path in plan.store.set_aside:
        console.print(f"[yellow]corrupt, set aside:[/] {escape(str(path))}")
    if plan.other_code:
        console.print(
            f"[yellow]{len(plan.other_code)} stored stages were made by other code of the same version[/] (study.other_code=warn)"
        )
    if not plan.to_run:
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("stage", "to run", "GPU time", "CPU time", "oracle $", "rates"):
        table.add_column(name, justify="left" if name in ("stage", "rates") else "right")
    usd: dict[str, float] = {}
    for planned in plan.to_run.values():
        usd[planned.node.kind] = usd.get(planned.node.kind, 0.0) + planned.cost.oracle_usd
    for kind, entry in totals["by_kind"].items():
        number = entry["measured"]
        measured = "assumed" if not number else "measured" if number == entry["stages"] else f"{number:.0f} measured"
        table.add_row(
            kind,
            f"{entry['stages']:.0f}",
            " ".join(short(entry["gpu_hours"])) if entry["gpu_hours"] else "",
            " ".join(short(entry["cpu_hours"])),
            f"{usd[kind]:.2f}" if usd[kind] else "",
            measured,
        )
    console.print(table)


_LONG = {"h": "hours", "min": "minutes", "s": "seconds"}


def _worked(what: str, hours: float) -> str:
    """`3.2 GPU-hours`, `45 CPU-seconds`."""
    number, unit = short(hours)
    return f"{number} {what}-{_LONG[unit]}"
