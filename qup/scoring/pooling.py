"""Reward scores from a vLLM pooling server, by token ids, so that the format stays ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from qup.config.schema import Reward
from qup.config.schema.choices import UNPOOLED
from qup.errors import InputError, Interrupted
from qup.scoring.formats import Ids
from qup.serving.http import fetch_json
from qup.serving.models import served, served_limit
from qup.serving.server import Server

ATTEMPTS = 5
BATCH = 64
"""Sequences a request."""
IN_FLIGHT = 4
"""Requests at a time, so that the server is never without one."""
TIMEOUT_S = 600.0


class PoolingServer:
    """A running server, of our own or by its address; `score` gives one number a sequence.

    `reward` is checked against what a foreign server says of itself. Raises InputError where it can't be reached, or
    serves another model.
    """

    def __init__(
        self, server: Server | str, reward: Reward, name: str, *, stopping: Callable[[], bool] = lambda: False, pause_s: float = 1.0
    ) -> None:
        self._server = server
        self._stopping = stopping
        self.pause_s = pause_s
        if isinstance(server, Server):
            self.model = server.model
            limit = server.limit()
            self.facts: dict[str, Any] = {"backend": "vllm", **server.facts}
        else:
            models = self._models()
            self.model = _named(models, reward, name, self.url)
            limit = served_limit(models, self.model)
            self.facts = {"backend": "vllm", "served_model": self.model, "version": self._version()}
        self.limit = min(reward.max_length, limit or reward.max_length)
        """Tokens, problem and trace together, that still get a score."""

    @property
    def url(self) -> str:
        return self._server.url if isinstance(self._server, Server) else self._server.rstrip("/").removesuffix("/v1")

    def score(self, sequences: Sequence[Ids]) -> list[float]:
        """Scores in the order given: the raw output at each sequence's last token. Raises Interrupted between requests."""
        parts = [[list(ids) for ids in sequences[start : start + BATCH]] for start in range(0, len(sequences), BATCH)]
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="qup-pooling") as pool:
            return [score for scores in pool.map(self._part, parts) for score in scores]

    def _part(self, part: list[Ids]) -> list[float]:
        if self._stopping():
            raise Interrupted("asked to stop; finished shards are kept")
        reply = self._send("/pooling", {"model": self.model, "input": part, "use_activation": False})
        entries = reply.get("data") if isinstance(reply, dict) else None
        if not isinstance(entries, list) or len(entries) != len(part):
            raise InputError(f"{self.url}/pooling: {len(part)} scores asked for, got {str(reply)[:200]}")
        return [self._last(entry.get("data")) for entry in sorted(entries, key=lambda entry: entry.get("index", 0))]

    def _last(self, data: Any) -> float:
        """The last token's output, whether the server pools all tokens or only that one."""
        while isinstance(data, list) and data and isinstance(data[-1], list):
            data = data[-1]
        if isinstance(data, list) and len(data) == 1 and isinstance(data[0], int | float):
            return float(data[0])
        if isinstance(data, list) and len(data) == 2:
            raise InputError(f"{self.url}: the model gives two labels; a reward model has one")
        raise InputError(f"{self.url}/pooling: one number a token expected, got {str(data)[:200]}")

    def _models(self) -> list[dict[str, Any]]:
        return self._patiently("/v1/models", lambda: served(self.url, None, timeout_s=TIMEOUT_S))

    def _version(self) -> str:
        try:
            return str(fetch_json(f"{self.url}/version", timeout_s=TIMEOUT_S).get("version", ""))
        except (OSError, ValueError, AttributeError):
            return ""

    def _send(self, path: str, body: Any) -> Any:
        key = self._server.key if isinstance(self._server, Server) else None
        return self._patiently(path, lambda: fetch_json(f"{self.url}{path}", body, key=key, timeout_s=TIMEOUT_S))

    def _patiently(self, path: str, ask: Callable[[], Any]) -> Any:
        """`ask()`, again after a connection fault or a server's 5xx; a server of our own is revived. InputError where that does not help."""
        own = isinstance(self._server, Server)
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self.pause_s * 2 ** (attempt - 1))
            try:
                return ask()
            except HTTPError as error:
                why = f"{error.code} {error.read()[:200].decode(errors='replace')}"
                if error.code < 500 and error.code != 429 and not (own and error.code in (401, 404)):
                    break
            except (OSError, ValueError) as error:
                why = str(error)
            if isinstance(self._server, Server):
                self._server.revive()
        raise InputError(f"{self.url}{path}: {why}; a vLLM server started with `vllm serve MODEL --runner pooling` is expected there")


def _named(models: list[dict[str, Any]], reward: Reward, name: str, url: str) -> str:
    """The served model that the configuration means; InputError where there is none."""
    listed = ", ".join(f"{model['id']} ({model['root']})" if model.get("root") else model["id"] for model in models) or "no model"
    if reward.served_model is not None:
        if all(model["id"] != reward.served_model for model in models):
            raise InputError(f"reward.{name}.served_model={reward.served_model}: {url} serves {listed}")
        return reward.served_model
    for model in models:
        if _tail(reward.path) in (_tail(model["id"]), _tail(str(model.get("root") or ""))):
            return str(model["id"])
    raise InputError(
        f"reward.{name}.base_url={url}: serves {listed}, which reward.{name}.path={reward.path} is not; "
        f"where it is the same model, say so by reward.{name}.served_model"
    )


def _tail(path: str) -> str:
    """The last part of a path or hub name; a hub's snapshot folder counts as its model."""
    parts = [part for part in path.rstrip("/").split("/") if part]
    if len(parts) > 2 and parts[-2] == "snapshots":
        return parts[-3].rpartition("--")[2].lower()
    return parts[-1].lower() if parts else ""


def reward_flags(reward: Reward, name: str, directory: Path | None, gpus: int) -> tuple[str, dict[str, Any]]:
    """The model and the flags of a server of our own, split over `gpus` GPUs; InputError where vLLM can't pool this model's score."""
    from qup.scoring.rewards import position_limit, source_of

    if reward.format in UNPOOLED:
        raise InputError(f"reward.{name}.backend=vllm: the score of format {reward.format} is no pooled output; transformers is valid")
    place, arguments = source_of(reward, name, directory)
    flags = {
        "runner": "pooling",
        "dtype": reward.dtype,
        "max-model-len": min(reward.max_length, position_limit(reward, name, directory) or reward.max_length),
        "revision": arguments.get("revision"),
        "trust-remote-code": arguments.get("trust_remote_code") or None,
        "tensor-parallel-size": gpus if gpus > 1 else None,
    }
    return place, {flag: value for flag, value in flags.items() if value is not None} | reward.vllm
