"""An Oracle behind an endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from qup.config.schema import Oracle
from qup.errors import InputError
from qup.oracle.asks import Request, endpoint
from qup.oracle.completions import Reply, read_completion, translate
from qup.serving.http import http_client


class ChatBackend:
    """Any endpoint that speaks OpenAI's chat completions, through the openai library without its own retries."""

    stored = True

    def __init__(self, oracle: Oracle, base_url: str | None, identity: dict[str, Any]) -> None:
        self.service = f"the endpoint {endpoint(base_url)}"
        self.identity = identity
        self._oracle = oracle
        self._key = ""
        self._base_url = base_url
        self._client: Any = None

    def prepare(self) -> None:
        import openai

        self._key = self._api_key()
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            max_retries=0,
            timeout=openai.Timeout(self._oracle.timeout_s, connect=min(self._oracle.timeout_s, 10.0)),
            http_client=http_client(self._base_url, asynchronous=True),
        )

    def _api_key(self) -> str:
        return api_key(self._oracle, self._base_url)

    async def send(self, request: Request) -> Reply:
        import openai

        try:
            async with asyncio.timeout(self._oracle.timeout_s):
                text = await self._client.post("/chat/completions", cast_to=str, body=request.body)
        except (openai.OpenAIError, TimeoutError, UnicodeDecodeError) as error:
            raise translate(error, self._oracle, self.service, self._key) from None
        return read_completion(text, request.body["messages"])

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


def api_key(oracle: Oracle, base_url: str | None) -> str:
    """The key from the environment; "" where an endpoint of one's own may do without. Raises InputError."""
    key = os.environ.get(oracle.api_key_env, "").strip()
    if not key and base_url is None and oracle.backend == "openai":
        raise InputError(
            f"oracle.api_key_env={oracle.api_key_env}: this environment variable holds no key for {endpoint(None)}; set it, or oracle.base_url for an endpoint of your own"
        )
    return key
