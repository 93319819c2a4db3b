"""An Oracle that we serve ourselves: vLLM on the GPUs this stage was given, asked as any other endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from qup.config.schema import Oracle
from qup.oracle.asks import Request
from qup.oracle.backends import ChatBackend
from qup.oracle.completions import Reply
from qup.oracle.faults import Broken


class Server(Protocol):
    """What serves; `_Served` is one."""

    @property
    def url(self) -> str: ...

    def start(self) -> str:
        """Returns once it answers; raises InputError where it can't be started."""
        ...

    def restart_if_dead(self) -> bool:
        """Whether it had crashed and runs again."""
        ...

    def stop(self) -> None: ...


class VllmBackend(ChatBackend):
    """Starts the server with the first question that isn't stored, restarts it where it crashed, stops it at the end.

    With `oracle.base_url` a server that runs already is asked, and left alone.
    """

    def __init__(self, oracle: Oracle, work: Path, gpus: str, stopping: Callable[[], bool]) -> None:
        super().__init__(oracle, oracle.base_url, {"backend": "vllm", "revision": oracle.revision, "content": oracle.content})
        self.where = f"vLLM serving {oracle.model}"
        self._work, self._gpus, self._stopping = work, gpus, stopping
        self._server: Server | None = None
        self._mending = asyncio.Lock()

    def prepare(self) -> None:
        if self._oracle.base_url is None:
            self._work.mkdir(parents=True, exist_ok=True)
            self._server = vllm_server(self._oracle, self._work, self._gpus, self._stopping)
            self._base_url = self._server.start()
        super().prepare()

    async def send(self, request: Request) -> Reply:
        try:
            return await super().send(request)
        except Broken as error:
            if not error.replied and self._server is not None:
                await self._mend(self._server)
            raise

    async def close(self) -> None:
        await super().close()
        if self._server is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._server.stop)

    async def _mend(self, server: Server) -> None:
        """Starts a crashed server again, once for all requests that met the crash."""
        async with self._mending:
            if await asyncio.get_running_loop().run_in_executor(None, server.restart_if_dead):
                await super().close()
                self._base_url = server.url
                super().prepare()


class _Served:
    """A generation server as the Oracle's backend wants it: its address ends in the API's version."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return f"{self._server.url}/v1"

    def start(self) -> str:
        self._server.start()
        return self.url

    def restart_if_dead(self) -> bool:
        return bool(self._server.revive())

    def stop(self) -> None:
        self._server.close()


def vllm_server(oracle: Oracle, work: Path, gpus: str, stopping: Callable[[], bool]) -> Server:
    """A server for the Oracle's model, not started; its log lies in `work`. The model is split over all the GPUs."""
    from qup.generation.vllm import Server as VllmServer
    from qup.generation.vllm import count_gpus

    found = [oracle.model, "--served-model-name", oracle.model]
    found += ["--revision", oracle.revision] if oracle.revision else []
    count = count_gpus(gpus)
    found += ["--tensor-parallel-size", str(count)] if count > 1 else []
    return _Served(VllmServer(found, work / "server.log", stopping))
