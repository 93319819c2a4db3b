"""One live rich display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from qup.launch.local.board import Board, StageState
from qup.launch.units import duration, left_in_words

LINE_EVERY_S = 15.0
WIDE = 140
"""Columns of a terminal that has room for the logs' names."""


class Display:
    """Shows a board until it is closed."""

    def __init__(self, board: Board, console: Console, plain: bool) -> None:
        self.board, self.console = board, console
        self.live = None if plain or not console.is_terminal else Live(console=console, refresh_per_second=4, get_renderable=self._render)
        self._last_line = 0.0

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def started(self, stage: StageState) -> None:
        if not self.live:
            self._say(f"start   {stage.ref.kind:<12} {stage.label}  (log {stage.log})")

    def ended(self, stage: StageState) -> None:
        """A stage has come to an end, whichever."""
        seconds = duration(stage.ended - stage.began)
        if stage.state == "failed":
            self._say(
                f"[red]failed[/]  {stage.ref.kind:<12} {escape(stage.label)}  after {seconds}: {escape(stage.error)}  (log {stage.log})",
                markup=True,
            )
        elif not self.live:
            self._say(f"{stage.state if stage.outcome in ('', 'ran') else stage.outcome:<7} {stage.ref.kind:<12} {stage.label}  {seconds}")

    def tick(self) -> None:
        """Called a few times a second; without a terminal says where things stand now and then."""
        now = time.time()
        if self.live or now - self._last_line < LINE_EVERY_S:
            return
        self._last_line = now
        running = self.board.of("running")
        if running:
            shown = "; ".join(f"{stage.ref.kind} {stage.label} {_amount(stage)}".rstrip() for stage in running)
            self._say(f"{self._counts()} · {self.board.left()} · {shown}")

    def _say(self, text: str, markup: bool = False) -> None:
        self.console.print(text, markup=markup)

    def _counts(self) -> str:
        board = self.board
        failed = len(board.of("failed", "blocked"))
        tail = f", {failed} failed or blocked" if failed else ""
        return f"{len(board.of('done'))} stages done, {len(board.of('running'))} running, {len(board.of('waiting'))} waiting{tail}"

    def _render(self) -> Group:
        """A line a running stage, none wrapped; what a narrow terminal has no room for is left out, its log first."""
        table = Table.grid(padding=(0, 1))
        now, width = time.time(), self.console.width
        for stage in self.board.of("running"):
            cells: list[RenderableType] = [
                Text(stage.ref.kind, style="cyan", no_wrap=True),
                Text(stage.label, no_wrap=True, overflow="ellipsis"),
                ProgressBar(total=stage.total or 1.0, completed=stage.done, width=max(6, min(24, width // 8)), pulse=not stage.total),
                Text(_amount(stage), no_wrap=True),
                Text(left_in_words(stage.left_s(now)), style="dim", no_wrap=True),
                Text(str(stage.log), style="dim", no_wrap=True, overflow="ellipsis"),
            ]
            table.add_row(*cells[: 6 if width >= WIDE else 5])
        spent = duration(now - self.board.began)
        head = Text.assemble(
            (self.board.study, "bold"),
            f"  {self._counts()}, {self.board.stored} stored\n{spent} so far, {self.board.left()}",
        )
        head.no_wrap, head.overflow = True, "ellipsis"
        return Group(head, table)


def _amount(stage: StageState) -> str:
    return f"{stage.done:,.0f}/{stage.total:,.0f} {stage.unit}" if stage.total else ""
