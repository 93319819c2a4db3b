"""The batches that were sent up and not yet collected, one small file each in the shared folder."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qup.config.fingerprint import digest
from qup.errors import StoreError
from qup.files import write_json
from qup.oracle.asks import Request


@dataclass
class BatchState:
    """One batch. `requests` holds, by key, what the answer store notes beside the answer, so that anybody can collect it.

    `name` is also the batch's tag at the endpoint: a batch that was made just before a kill is found again by it.
    """

    name: str
    endpoint: str
    model: str
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    batch_id: str | None = None


class BatchStates:
    """The state files of one endpoint."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self._folder, self._endpoint = folder, endpoint
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"batches can't be noted in {folder}: {error}") from error

    def new(self, model: str, asked: Sequence[Request]) -> BatchState:
        """The state of a batch about to be made; on disk when this returns."""
        requests = {
            one.key: {"task": one.ask.task, "id": one.ask.id, "attempt": one.ask.attempt, "messages_sha256": digest(one.body["messages"])}
            for one in asked
        }
        state = BatchState(f"{int(time.time())}-{secrets.token_hex(6)}", self._endpoint, model, requests)
        self.save(state)
        return state

    def save(self, state: BatchState) -> None:
        """Writes a state to its file."""
        try:
            write_json(self._folder / f"{state.name}.json", asdict(state), compact=True)
        except OSError as error:
            raise StoreError(f"batch {state.name} can't be noted in {self._folder}: {error}") from error

    def waiting(self) -> list[BatchState]:
        """Batches that nobody has collected, oldest first."""
        paths = [path for path in sorted(self._folder.glob("*.json")) if not path.with_suffix(".collected").exists()]
        states = [BatchState(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
        return [state for state in states if state.endpoint == self._endpoint]

    def collected(self, state: BatchState) -> bool:
        """Marks a batch as collected; True for the one process that came first, which books its costs."""
        try:
            os.close(os.open(self._folder / f"{state.name}.collected", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            return False
        return True
