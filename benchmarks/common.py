"""What every benchmark shares: its figures as a table, then one line of JSON, and the exit status."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.table import Table

from qup.errors import InputError

T = TypeVar("T")
DATA = Path("../shared/data")
"""Where real files lie by default, seen from the project's root."""


def first_rows(path: Path, n: int) -> list[Any]:
    """The first n lines of a file of JSON lines."""
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for _, line in zip(range(n), stream)]


@dataclass(frozen=True)
class Measure:
    """Ours beside a peer's figure; `ratio` says how many times better ours is, and has to reach `target`."""

    what: str
    unit: str
    ours: float
    peer: float
    target: float
    better: Literal["higher", "lower"] = "higher"

    @property
    def ratio(self) -> float:
        above, below = (self.ours, self.peer) if self.better == "higher" else (self.peer, self.ours)
        return above / below if below else float("inf")

    @property
    def passed(self) -> bool:
        return self.ratio >= self.target

    def json(self) -> dict[str, Any]:
        figures = {"ours": self.ours, "peer": self.peer, "ratio": self.ratio, "target": self.target}
        return (
            {"what": self.what, "unit": self.unit} | {key: float(f"{value:.6g}") for key, value in figures.items()} | {"pass": self.passed}
        )


@dataclass(frozen=True)
class Check:
    """Something that must hold beside the figures."""

    what: str
    passed: bool
    found: str

    def json(self) -> dict[str, Any]:
        return {"what": self.what, "found": self.found, "pass": self.passed}


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """What `function` returns, and the seconds it took by the wall clock."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def need(path: Path) -> Path:
    """The path; raises InputError where it is missing."""
    if not path.exists():
        raise InputError(f"{path} is missing; say where the real files lie with --data DIR")
    return path


def conclude(name: str, measures: Sequence[Measure], checks: Sequence[Check] = (), **facts: Any) -> int:
    """Prints the table and, last, one line of JSON; returns the exit status, 1 where anything falls short.

    The JSON's own ours, peer, ratio and target are the first measure's; `pass` is everything's.
    """
    table = Table("", "ours", "peer", "unit", "ratio", "target", "", title=name)
    for measure in measures:
        cells = (
            measure.what,
            f"{measure.ours:,.4g}",
            f"{measure.peer:,.4g}",
            measure.unit,
            f"{measure.ratio:.2f}",
            f"≥ {measure.target:g}",
        )
        table.add_row(*cells, "pass" if measure.passed else "SHORT")
    for check in checks:
        table.add_row(check.what, check.found, "", "", "", "", "pass" if check.passed else "SHORT")
    Console().print(table)
    passed = all(measure.passed for measure in measures) and all(check.passed for check in checks)
    first = measures[0].json() if measures else {}
    record = {"name": name, **{key: first.get(key) for key in ("ours", "peer", "ratio", "target")}, "pass": passed}
    record |= {"measures": [measure.json() for measure in measures], "checks": [check.json() for check in checks], **facts}
    print(json.dumps(record, ensure_ascii=False))
    return 0 if passed else 1


def run(main: Callable[[], int]) -> None:
    """Runs a benchmark's main; an error of ours is one line and exit status 2."""
    try:
        raise SystemExit(main())
    except InputError as error:
        print(f"error: {error}")
        raise SystemExit(2) from None
