"""What is known of a study while it runs, for the display and for status."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from qup.launch.units import duration, left_in_words, remaining
from qup.pipeline.graph import Ref
from qup.store import Store


@dataclass
class StageState:
    """One stage as the launcher sees it."""

    ref: Ref
    label: str
    log: Path
    expected_s: float
    state: str = "waiting"
    """waiting | running | done | failed | blocked (an input failed)."""
    outcome: str = ""
    """Once done: ran | adopted (equal work was there) | stored (another launch computed it)."""
    began: float = 0.0
    ended: float = 0.0
    error: str = ""
    done: float = 0.0
    total: float = 0.0
    unit: str = ""

    def read_progress(self, store: Store) -> None:
        """Takes over what the stage wrote into its lease."""
        lease = store.holder(*self.ref)
        progress = (lease or {}).get("progress")
        if progress:
            self.done, self.total, self.unit = progress["done"], progress["total"], progress["unit"]

    def left_s(self, now: float, pace: float = 1.0) -> float | None:
        """Seconds this stage still takes, by its progress where it shows enough, else by the plan times `pace`; None: longer than that."""
        if self.state == "waiting":
            return self.expected_s * pace
        if self.state != "running":
            return 0.0
        return remaining(now - self.began, self.done / self.total if self.total > 0 else 0.0, self.expected_s * pace)


@dataclass
class Board:
    """All stages of a launch."""

    study: str
    stages: dict[Ref, StageState]
    stored: int
    slots: int
    began: float = field(default_factory=time.time)

    def of(self, *states: str) -> list[StageState]:
        """Stages in any of these states."""
        return [stage for stage in self.stages.values() if stage.state in states]

    def left(self) -> str:
        """What the launch still takes, spread over the slots; stages of a kind take what those before them took."""
        now, paces = time.time(), self._paces()
        known = [stage.left_s(now, paces.get(stage.ref.kind, 1.0)) for stage in self.of("waiting", "running")]
        told = [seconds for seconds in known if seconds is not None]
        seconds = max([sum(told) / max(1, self.slots), *told], default=0.0)
        if None not in known:
            return left_in_words(seconds)
        return f"more than {duration(seconds)} left" if round(seconds) else left_in_words(None)

    def _paces(self) -> dict[str, float]:
        """Seconds taken for each second planned, by kind."""
        taken: dict[str, float] = {}
        planned: dict[str, float] = {}
        for stage in self.of("done"):
            if stage.expected_s and stage.outcome == "ran":
                taken[stage.ref.kind] = taken.get(stage.ref.kind, 0.0) + stage.ended - stage.began
                planned[stage.ref.kind] = planned.get(stage.ref.kind, 0.0) + stage.expected_s
        return {kind: taken[kind] / planned[kind] for kind in planned}
