"""An Oracle that we serve ourselves: vLLM on the GPUs this stage was given, asked as any other endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qup.config.schema import Oracle, Vllm
from qup.errors import InputError
from qup.oracle.asks import Request, endpoint
from qup.oracle.chat import ChatBackend
from qup.oracle.completions import Reply
from qup.oracle.faults import Broken, Hopeless, Rejected
from qup.serving.command import count_gpus
from qup.serving.facts import note, noted
from qup.serving.http import fetch_json
from qup.serving.models import served
from qup.serving.server import Server

LEAST_TOKENS = 64
"""An answer with fewer tokens than that left to it is not asked for."""
LOOK_S = 20.0
"""Longest wait for a running server's word on what it serves."""


class ServedBackend(ChatBackend):
    """Starts the server with the first question that isn't stored, revives it where it died, stops it at the end.

    With `oracle.base_url` a server that runs already is asked, and left alone.
    """

    def __init__(self, oracle: Oracle, vllm: Vllm, work: Path, gpus: str, stopping: Callable[[], bool], log: logging.Logger) -> None:
        identity: dict[str, Any] = {"backend": "vllm", "revision": oracle.revision, "content": oracle.content}
        identity |= {name: value for name in ("vllm", "chat_template") if (value := getattr(oracle, name))}
        super().__init__(oracle, oracle.base_url, identity)
        self._vllm, self._work, self._gpus, self._stopping, self._log = vllm, work, gpus, stopping, log
        self._server: Server | None = None
        self._clamped = 0
        self._mending = asyncio.Lock()
        if oracle.base_url is None:
            self.service = f"vLLM serving {oracle.path or oracle.model}"

    def prepare(self) -> None:
        if self._oracle.base_url is None:
            self._server = self._own()
            try:
                self._server.start()
            except BaseException:
                self._server.close()
                raise
            self._base_url = f"{self._server.url}/v1"
            note(self._work, self._server.facts)
        else:
            self._check_served(self._oracle.base_url)
        super().prepare()

    async def send(self, request: Request) -> Reply:
        server = self._server
        if server is not None:
            request = replace(request, body={**request.body, "model": server.model})
        try:
            return await self._within(request)
        except Broken as error:
            if server is not None and (not error.replied or error.status == "500"):
                await self._mend(server)
            raise
        except Rejected as error:
            raise self._by_name(error) from None

    async def _within(self, request: Request) -> Reply:
        """The answer, cut to what the prompt leaves of the model's positions where `oracle.max_tokens` is more than that."""
        try:
            return await super().send(request)
        except Rejected as error:
            left = await self._left(request) if error.status == "too_long" else 0
            if left < LEAST_TOKENS:
                raise
        self._clamped += 1
        name = next(name for name in ("max_tokens", "max_completion_tokens") if name in request.body)
        return await super().send(replace(request, body={**request.body, name: left}))

    async def _left(self, request: Request) -> int:
        """Positions that a prompt leaves, by the server's own tokenizer; 0 where it doesn't tell."""
        asked = {name: request.body[name] for name in ("model", "messages")}
        url = str(self._base_url).rstrip("/").removesuffix("/v1")
        try:
            told = await asyncio.to_thread(fetch_json, f"{url}/tokenize", asked, key=self._key or None, timeout_s=LOOK_S)
            return int(told["max_model_len"]) - int(told["count"])
        except (OSError, ValueError, LookupError, TypeError):
            return 0

    async def close(self) -> None:
        if self._clamped:
            note(self._work, noted(self._work).get("served", {}) | {"clamped": self._clamped})
            self._log.warning(
                "%d answers had less than oracle.max_tokens=%d tokens left of the model's positions and were cut to them",
                self._clamped,
                self._oracle.max_tokens,
            )
        await super().close()
        if self._server is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._server.close)

    def _api_key(self) -> str:
        return super()._api_key() if self._server is None else self._server.key

    def _own(self) -> Server:
        """A server for the Oracle's model, not started; the model is split over all the GPUs."""
        oracle = self._oracle
        gpus = count_gpus(self._gpus)
        flags: dict[str, Any] = {"revision": oracle.revision} if oracle.revision else {}
        if gpus > 1:
            flags["tensor-parallel-size"] = gpus
        if oracle.chat_template:
            self._work.mkdir(parents=True, exist_ok=True)
            file = self._work / "chat_template.jinja"
            file.write_text(oracle.chat_template, encoding="utf-8")
            flags["chat-template"] = str(file)
        return Server(
            self._vllm,
            "oracle",
            oracle.path or oracle.model,
            flags | oracle.vllm,
            work=self._work,
            stopping=self._stopping,
            log=self._log,
        )

    def _check_served(self, base_url: str) -> None:
        """Raises InputError where a running server says that it serves other models than oracle.model."""
        url, key = base_url.rstrip("/").removesuffix("/v1"), self._api_key() or None
        try:
            models = served(url, key, timeout_s=LOOK_S)
        except (OSError, ValueError):
            return  # the first request tells
        names = [model["id"] for model in models]
        if names and self._oracle.model not in names:
            raise InputError(
                f"oracle.base_url={endpoint(base_url)}: serves {', '.join(names[:10])}; oracle.model={self._oracle.model} is none of them"
            )
        try:
            version = fetch_json(f"{url}/version", key=key, timeout_s=LOOK_S).get("version", "")
        except (OSError, ValueError, AttributeError):
            version = ""
        note(
            self._work,
            {"version": version, "root": next((model.get("root") for model in models if model["id"] == self._oracle.model), None)},
        )

    async def _mend(self, server: Server) -> None:
        """Revives a dead server, once for all requests that met its death."""
        async with self._mending:
            if await asyncio.get_running_loop().run_in_executor(None, server.revive):
                await super().close()
                self._base_url = f"{server.url}/v1"
                super().prepare()

    def _by_name(self, error: Rejected) -> Exception:
        """A base model has no chat template; vLLM says so at the first request."""
        if "chat template" not in str(error):
            return error
        model = self._oracle.path or self._oracle.model
        return Hopeless(
            f"oracle.model={model}: has no chat template, so it is a base model and can't be asked; choose an instruct model, "
            "or set oracle.chat_template"
        )
