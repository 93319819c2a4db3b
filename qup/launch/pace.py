"""How often a study that nobody watches is looked at: soon after something changed on disk, seldom while nothing does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from qup.launch.plan import published
from qup.study import Study

ASK_S = 30.0
"""Longest time between two questions to SLURM's controller, which serves a whole cluster."""
STAT_S = 1.0
"""Time between two looks at directories."""


def _never() -> bool:
    return False


class Pace:
    """Asking again after 1, 2, 4, … seconds, at most `most`; from the beginning whenever a stage was published or ended."""

    def __init__(self, study: Study, most: float = ASK_S) -> None:
        self.most = most
        self._store = study.open_store()
        self._kinds = sorted({ref.kind for ref in study.nodes})
        self._folders = [study.folder / "failed", study.folder / "slurm" / "exits"]
        self._delay = STAT_S
        self._seen = self._marks()

    def _marks(self) -> object:
        return published(self._store, self._kinds), [_changed(folder) for folder in self._folders]

    def pause(self, stop: Callable[[], bool] = _never) -> None:
        """Returns when it is time to ask again, or to stop."""
        until = time.monotonic() + self._delay
        while time.monotonic() < until and not stop():
            time.sleep(min(STAT_S, max(0.0, until - time.monotonic())))
            if self.changed():
                self._delay = STAT_S
                return
        self._delay = min(2 * self._delay, self.most)

    def changed(self) -> bool:
        """Whether something was published or ended since this was last asked."""
        before, self._seen = self._seen, self._marks()
        return before != self._seen


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
