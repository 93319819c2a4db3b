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
        content = {
            "view": plain(self.view),
            "stream": str(self.stream),
            "student": str(self.student) if self.student else None,
            "work": str(self.work),
            "out": str(self.out),
            "key": self.key,
            "memory": self.memory,
            "sources": self.sources,
        }
        (folder / "job.json").write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Reads job.json."""
        content = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        return cls(
            build(TrainView, content["view"]),
            Path(content["stream"]),
            Path(content["student"]) if content["student"] else None,
            Path(content["work"]),
            Path(content["out"]),
            content["key"],
            content["memory"],
            content["sources"],
        )
