"""`python launch.py …` in this process, with a stand-in for what it hands over to."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

import qup.commands.launch as entry
from qup.config.schema import Config


@dataclass
class FakeStudy:
    """Stands in for qup.launch.launch: records what it is handed."""

    status: int = 0
    error: Exception | None = None
    submitted: bool = False
    calls: list[tuple[list[Config], str]] = field(default_factory=list)

    judged: list[bool] = field(default_factory=list)
    """For each call, whether the cells were said to be judged already."""

    def launch(self, cells: list[Config], launcher: str = "local", console: object = None, *, checked: bool = False) -> Any:
        self.calls.append((list(cells), launcher))
        self.judged.append(checked)
        if self.error:
            raise self.error
        values: list[Any] = ["submitted" if self.submitted else float(index) for index in range(len(cells))]
        if self.status:
            values[0] = None
        return type("Outcome", (), {"status": self.status, "values": tuple(values)})


def main(monkeypatch: pytest.MonkeyPatch, command: str) -> int:
    """Exit status of `python launch.py …`, in this process."""
    monkeypatch.setattr(sys, "argv", ["launch.py", *command.split()])
    try:
        entry.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0
