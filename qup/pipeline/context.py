"""What a running stage is handed beside its view and inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qup.config.schema import Resources
from qup.errors import Interrupted
from qup.files import write_table

if TYPE_CHECKING:
    import pyarrow as pa


def _ignore(done: float, total: float, unit: str) -> None:
    """Progress nobody watches."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Context:
    """Folders, resources and signals of one stage run.

    `out` is published when the stage returns; `work` survives kills and is where shards, checkpoints and
    half-done state live; `shared` outlives the stage and is shared by studies (the Oracle's answers).
    """

    out: Path
    work: Path
    shared: Path
    resources: Resources = field(default_factory=Resources)
    key: str = ""
    study: str = ""
    progress: Callable[[float, float, str], None] = _ignore
    """progress(done, total, unit): units are problems, traces, tokens, steps."""
    stopping: Callable[[], bool] = _never
    """True once the stage was asked to stop: finish the shard or checkpoint, then raise Interrupted."""
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("qup"))

    def check(self) -> None:
        """Raises Interrupted where the stage was asked to stop."""
        if self.stopping():
            raise Interrupted("asked to stop; finished shards and checkpoints are kept")

    def shard_path(self, index: int) -> Path:
        """Where shard `index` lies once finished."""
        return self.work / "shards" / f"{index:06d}.parquet"

    def has_shard(self, index: int) -> bool:
        return self.shard_path(index).exists()

    def save_shard(self, index: int, table: pa.Table) -> None:
        """Publishes a finished shard: written beside, then renamed."""
        write_table(self.shard_path(index), table)

    def load_shard(self, index: int) -> pa.Table:
        import pyarrow.parquet as pq

        return pq.read_table(self.shard_path(index))
