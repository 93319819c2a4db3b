"""A backend whose behaviour is a function, for tests of what stands around it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qup.config.schema import Oracle
from qup.oracle import Ask, OracleClient, client, open_oracle
from qup.oracle.asks import Request
from qup.oracle.completions import Reply


class FakeBackend:
    """Answers by calling `behave(request, n)`, n the number of times this key was sent before; counts and times nothing itself."""

    service = "the fake endpoint"
    stored = True

    def __init__(self, behave: Callable[[Request, int], Reply], seconds: float = 0.0, name: str = "fake") -> None:
        self.identity: dict[str, Any] = {"backend": name}
        self.sent: Counter[str] = Counter()
        self.in_flight = self.most = 0
        self._behave, self._seconds = behave, seconds

    def prepare(self) -> None:
        pass

    async def send(self, request: Request) -> Reply:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        self.sent[request.key] += 1
        try:
            await asyncio.sleep(self._seconds)
            return self._behave(request, self.sent[request.key] - 1)
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        pass


def echo(request: Request, n: int) -> Reply:
    return Reply(f"to {request.body['messages'][-1]['content']}", "stop", 10, 20)


def opened(patch: pytest.MonkeyPatch, backend: FakeBackend, folder: Path, **settings: Any) -> OracleClient:
    """A client of that backend; Oracle settings and open_oracle's arguments by name."""
    patch.setattr(client, "make_backend", lambda *_: backend)
    fields = {name: settings.pop(name) for name in list(settings) if name in Oracle.__dataclass_fields__}
    return open_oracle(Oracle(**{"backend": "openai", "model": "m", "max_retries": 3} | fields), folder, **settings)


def asks(*names: object, attempt: int = 0) -> Iterator[Ask]:
    for name in names:
        yield Ask(f"id-{name}", "refine", [{"role": "system", "content": "Task: refine"}, {"role": "user", "content": f"q{name}"}], attempt)
