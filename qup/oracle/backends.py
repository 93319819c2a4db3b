"""Who answers: one interface, four ways behind it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from qup.config.schema import LabOracle, Oracle, Vllm
from qup.errors import InputError
from qup.oracle.asks import Request, endpoint
from qup.oracle.chat import ChatBackend
from qup.oracle.completions import Reply, read_completion
from qup.oracle.recorded import RecordedBackend
from qup.oracle.served import ServedBackend


class Backend(Protocol):
    """Sends one request at a time to whoever answers."""

    service: str
    """For messages to people."""
    identity: dict[str, Any]
    """Part of every request's key: answers of one identity may stand in for each other."""
    stored: bool
    """Whether answers go into the answer store."""

    def prepare(self) -> None:
        """Called once, before the first send: imports, keys, servers. Raises InputError."""

    async def send(self, request: Request) -> Reply:
        """Raises Hopeless, Limited, Broken or Rejected."""
        ...

    async def close(self) -> None: ...


class LabBackend:
    """The embedded world's programmed Oracle, called in process."""

    stored = True

    def __init__(self, oracle: Oracle) -> None:
        from qup.lab import oracle as lab

        self.service = "the lab's Oracle"
        settings = _told(oracle.lab)
        self.identity = {"backend": "lab", "version": getattr(lab, "VERSION", 1), "lab": settings}
        self._answer = lab.LabOracle.answer
        self._oracle = oracle

    def prepare(self) -> None:
        pass

    async def send(self, request: Request) -> Reply:
        if self._oracle.lab.latency_s:
            await asyncio.sleep(self._oracle.lab.latency_s)
        given = self._answer(request.body["messages"], seed=self._oracle.seed or 0, attempt=request.ask.attempt, cfg=self._oracle.lab)
        return read_completion(given, request.body["messages"])

    async def close(self) -> None:
        pass


def _told(lab: LabOracle) -> dict[str, Any]:
    """What decides its answers; manners that are the default are left out, so that answers from before there were any still count."""
    plain, usual = dataclasses.asdict(lab), dataclasses.asdict(LabOracle())
    always = ("error_rate", "refuse_rate")
    return {name: value for name, value in plain.items() if name in always or (value != usual[name] and name != "latency_s")}


def make_backend(oracle: Oracle, vllm: Vllm, work: Path, gpus: str, stopping: Callable[[], bool], log: logging.Logger) -> Backend:
    """The backend that a configuration names; nothing is started or sent yet. Raises InputError.

    A server of our own is started as `vllm` says, writes its log to `work`, runs on `gpus` (as in Resources), and gives
    up starting where `stopping` says so.
    """
    if oracle.backend == "lab":
        return LabBackend(oracle)
    if oracle.backend == "recorded":
        return RecordedBackend(oracle)
    if oracle.backend in ("openai", "vllm") and not oracle.model:
        raise InputError(f"oracle.model={oracle.model!r}: the endpoint's name of the model, or the path that vLLM serves, has to be given")
    if oracle.backend == "openai":
        return ChatBackend(oracle, oracle.base_url, {"backend": "openai", "endpoint": endpoint(oracle.base_url)})
    if oracle.backend == "vllm":
        return ServedBackend(oracle, vllm, work, gpus, stopping, log)
    raise InputError(f"oracle.backend={oracle.backend!r}: this stage asks an Oracle; choose lab, recorded, openai or vllm")
