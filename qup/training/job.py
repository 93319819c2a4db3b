"""A training run as every rank is told of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from qup.config.fingerprint import build, plain
from qup.config.views import TrainView


@dataclass(frozen=True)
class Job:
    """What is to be done, and where; frozen in a file where ranks are processes of their own."""

    view: TrainView
    stream: Path
    """The stream's parquet file."""
    student: Path | None
    """Directory of the lab student's weights; None: the model's own path."""
    work: Path
    out: Path
    key: str
    memory: str
    """Memory of one rank, as in Resources.mem."""
    sources: dict[str, str]
    """Input name → its key, for the model card."""

    def save(self, folder: Path) -> None:
        """Writes job.json."""
        (folder / "job.json").write_text(json.dumps(vars(self) | {"view": plain(self.view)}, indent=1, default=str), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Reads job.json."""
        content = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        paths = {name: Path(content[name]) for name in ("stream", "student", "work", "out") if content[name]}
        return cls(**content | paths | {"view": build(TrainView, content["view"])})
