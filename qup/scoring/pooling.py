"""Reward scores from a vLLM pooling server, by token ids, so that the format stays ours."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qup.config.schema import Reward
from qup.errors import InputError
from qup.scoring.formats import FORMATS, Ids

ATTEMPTS = 5
BATCH = 64
"""Sequences a request."""
TIMEOUT_S = 600.0


class PoolingServer:
    """A running server, by its address; `score` gives one number a sequence."""

    def __init__(self, base_url: str, *, pause_s: float = 1.0) -> None:
        self.url = base_url.rstrip("/").removesuffix("/v1")
        self.pause_s = pause_s
        models = self._send("/v1/models", None)
        try:
            self.model = str(models["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise InputError(f"{self.url}/v1/models names no model: {str(models)[:200]}") from None

    def score(self, sequences: Sequence[Ids]) -> list[float]:
        """Scores in the order given: the raw output at each sequence's last token."""
        scores: list[float] = []
        for start in range(0, len(sequences), BATCH):
            part = [list(ids) for ids in sequences[start : start + BATCH]]
            reply = self._send("/pooling", {"model": self.model, "input": part, "use_activation": False})
            entries = reply.get("data") if isinstance(reply, dict) else None
            if not isinstance(entries, list) or len(entries) != len(part):
                raise InputError(f"{self.url}/pooling: {len(part)} scores asked for, got {str(reply)[:200]}")
            ordered = sorted(entries, key=lambda entry: entry.get("index", 0))
            scores.extend(self._last(entry.get("data")) for entry in ordered)
        return scores

    def _last(self, data: Any) -> float:
        """The last token's output, whether the server pools all tokens or only that one."""
        while isinstance(data, list) and data and isinstance(data[-1], list):
            data = data[-1]
        if isinstance(data, list) and len(data) == 1 and isinstance(data[0], int | float):
            return float(data[0])
        if isinstance(data, list) and len(data) == 2:
            raise InputError(f"{self.url}: the model gives two labels; a reward model has one")
        raise InputError(f"{self.url}/pooling: one number a token expected, got {str(data)[:200]}")

    def _send(self, path: str, body: Any) -> Any:
        """One request, sent again after a connection fault or a server's 5xx; InputError where that does not help."""
        data = None if body is None else json.dumps(body).encode()
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self.pause_s * 2 ** (attempt - 1))
            request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                    return json.loads(reply.read())
            except urllib.error.HTTPError as error:
                why = f"{error.code} {error.read()[:200].decode(errors='replace')}"
                if error.code < 500 and error.code != 429:
                    break
            except (urllib.error.URLError, OSError, ValueError) as error:
                why = str(error)
        raise InputError(f"{self.url}{path}: {why}; a vLLM server started with `vllm serve MODEL --runner pooling` is expected there")


def serve_arguments(reward: Reward, name: str, directory: Path | None, gpus: int) -> list[str]:
    """Command line of a server of our own, without program and address; InputError where vLLM can't pool this model's score."""
    from qup.scoring.rewards import source_of

    if FORMATS[reward.format].kind == "causal":
        raise InputError(f"reward.{name}.backend=vllm: the score of format {reward.format} is no pooled output; transformers is valid")
    place, arguments = source_of(reward, name, directory)
    found = [place, "--runner", "pooling", "--dtype", reward.dtype, "--max-model-len", str(reward.max_length)]
    if arguments.get("revision"):
        found += ["--revision", arguments["revision"]]
    if arguments.get("trust_remote_code"):
        found.append("--trust-remote-code")
    if gpus > 1:
        found += ["--tensor-parallel-size", str(gpus)]
    return found
