"""A loopback Oracle that misbehaves as it is told, and keeps the books by which a client is judged.

    python -m benchmarks.oracle_server '{"latency_s": 0.2, "rate": 100, "limited": 0.1, "cut": 0.05, "malformed": 0.01}'

prints its port, then serves chat completions, the batch API, `/books` (what it saw) and `/tell` (new behaviour).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BEHAVIOUR: dict[str, Any] = {
    "seed": 0,
    "latency_s": 0.0,
    "rate": None,  # requests a second it serves; what is above gets 429 with a true Retry-After
    "limited": 0.0,  # share turned away with 429 whatever the rate; they don't count against it
    "retry_after": 0.5,  # of those
    "cut": 0.0,  # share whose answer is cut off half way
    "malformed": 0.0,  # share answered with broken JSON
    "key": None,  # the API key it wants
    "models": None,  # the models it knows
    "quota": None,  # answers until the quota is exhausted
    "hang": False,  # accepts and never answers
    "status": None,  # an error status for everything
    "error": None,  # its error object
    "batch_s": 0.2,  # how long a batch takes
    "batch_lost": 0.0,  # share of a batch's requests that come back as errors
}


class Cut(Exception):
    """Makes the server drop the connection."""


class Server:
    """An ASGI application."""

    def __init__(self, behaviour: dict[str, Any]) -> None:
        self.told = BEHAVIOUR | behaviour
        self._random = random.Random(self.told["seed"])
        self._level, self._at = 0.0, time.monotonic()
        self.count: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        path = scope["path"].removeprefix("/v1")
        if path == "/tell":
            self.__init__(json.loads(body))  # type: ignore[misc]
            await _respond(send, 200, {})
        elif path == "/books":
            await _respond(send, 200, self.books())
        elif self.told["key"] and headers.get("authorization") != f"Bearer {self.told['key']}":
            given = headers.get("authorization", "").removeprefix("Bearer ")
            await _respond(send, 401, {"error": {"message": f"Incorrect API key provided: {given}.", "code": "invalid_api_key"}})
        elif path == "/chat/completions":
            await self._chat(json.loads(body), send)
        else:
            await self._batch_api(scope["method"], path, body, headers, send)

    def books(self) -> dict[str, Any]:
        """What the server saw. `repeats`: answers made for questions that had been answered or cut off before."""
        made = self.good + self.cut
        return {
            **self.count,
            "distinct": len(self.good),
            "repeats": sum(made.values()) - len(made),
            "most_in_flight": self.most_in_flight,
            "in_flight": self.in_flight,
            "batches": len(self._batches),
        }

    async def _chat(self, body: dict[str, Any], send: Send) -> None:
        self.count["requests"] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self._served(body, send)
        finally:
            self.in_flight -= 1

    async def _served(self, body: dict[str, Any], send: Send) -> None:
        told, question = self.told, body["messages"][-1]["content"]
        fate = self._random.random()
        if told["hang"]:
            await asyncio.sleep(3600)
        if told["status"]:
            await _respond(send, told["status"], {"error": told["error"] or {"message": "as told"}})
            return
        if told["models"] is not None and body["model"] not in told["models"]:
            await _respond(send, 404, {"error": {"message": f"The model `{body['model']}` does not exist", "code": "model_not_found"}})
            return
        if told["quota"] is not None and self.count["good"] >= told["quota"]:
            message = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
            await _respond(send, 429, {"error": message})
            return
        if fate < told["limited"]:
            self.count["limited"] += 1
            await _respond(send, 429, {"error": {"message": "slow down"}}, {"retry-after": str(told["retry_after"])})
            return
        wait = self._over_rate()
        if wait:
            self.count["over_rate"] += 1
            await _respond(send, 429, {"error": {"message": "rate limit"}}, {"retry-after": f"{wait:.3f}"})
            return
        self.count["admitted"] += 1
        await asyncio.sleep(told["latency_s"])
        fate = (fate - told["limited"]) / (1 - told["limited"])
        answer = json.dumps(completion(body)).encode()
        if fate < told["cut"]:
            self.count["cut"] += 1
            self.cut[question] += 1
            await _head(send, 200, {"content-length": str(len(answer))})
            await send({"type": "http.response.body", "body": answer[: len(answer) // 2], "more_body": True})
            raise Cut
        if fate < told["cut"] + told["malformed"]:
            self.count["malformed"] += 1
            self.malformed[question] += 1
            await _respond(send, 200, answer[: len(answer) // 2])
            return
        self.count["good"] += 1
        self.good[question] += 1
        await _respond(send, 200, answer)

    def _over_rate(self) -> float:
        """Seconds until the rate would allow this request; 0 where it does now."""
        rate = self.told["rate"]
        if rate is None:
            return 0.0
        now = time.monotonic()
        self._level = min(self._level + (now - self._at) * rate, max(1.0, rate / 5))
        self._at = now
        if self._level < 1:
            return (1 - self._level) / rate
        self._level -= 1
        return 0.0

    async def _batch_api(self, method: str, path: str, body: bytes, headers: dict[str, str], send: Send) -> None:
        if path == "/files" and method == "POST":
            name = f"file-{len(self._files)}"
            self._files[name] = _multipart(body, headers["content-type"])
            await _respond(
                send,
                200,
                {"id": name, "object": "file", "bytes": 0, "created_at": 0, "filename": "f", "purpose": "batch", "status": "processed"},
            )
        elif path.startswith("/files/"):
            await _respond(send, 200, self._files[path.split("/")[2]])
        elif path == "/batches" and method == "POST":
            self.count["batches_made"] += 1
            asked = json.loads(body)
            name = f"batch-{len(self._batches)}"
            state = {
                "id": name,
                "object": "batch",
                "endpoint": asked["endpoint"],
                "completion_window": "24h",
                "created_at": 0,
                "status": "in_progress",
            }
            self._batches[name] = state | {
                "input_file_id": asked["input_file_id"],
                "metadata": asked.get("metadata"),
                "ends": time.monotonic() + self.told["batch_s"],
            }
            await _respond(send, 200, self._batches[name])
        elif path == "/batches":
            await _respond(send, 200, {"object": "list", "data": list(self._batches.values()), "has_more": False})
        elif path.startswith("/batches/"):
            await _respond(send, 200, self._worked(self._batches[path.split("/")[2]]))
        else:
            await _respond(send, 404, {"error": {"message": f"no {path} here"}})

    def _worked(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch as it stands now; answers are made once it ends."""
        if batch["status"] != "in_progress" or time.monotonic() < batch["ends"]:
            return batch
        rows = [json.loads(line) for line in self._files[batch["input_file_id"]].splitlines()]
        unknown = [
            row["body"]["model"] for row in rows if self.told["models"] is not None and row["body"]["model"] not in self.told["models"]
        ]
        if unknown:
            batch |= {
                "status": "failed",
                "errors": {"object": "list", "data": [{"code": "model_not_found", "message": f"The model {unknown[0]} does not exist"}]},
            }
            return batch
        done, lost = [], []
        for row in rows:
            if self._random.random() < self.told["batch_lost"]:
                lost.append({"custom_id": row["custom_id"], "response": {"status_code": 500, "body": {"error": {"message": "lost"}}}})
            else:
                self.good[row["body"]["messages"][-1]["content"]] += 1
                done.append({"custom_id": row["custom_id"], "response": {"status_code": 200, "body": completion(row["body"])}})
        for name, some in (("output_file_id", done), ("error_file_id", lost)):
            if some:
                batch[name] = f"file-{len(self._files)}"
                self._files[batch[name]] = "\n".join(map(json.dumps, some)).encode()
        batch["status"] = "completed"
        return batch


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request: a digest of the question, so that a test can tell that it got its own."""
    question = body["messages"][-1]["content"]
    text = f"answer {hashlib.sha256(question.encode()).hexdigest()[:12]}"
    usage = {"prompt_tokens": len(question) // 4, "completion_tokens": 5, "total_tokens": len(question) // 4 + 5}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}


@contextmanager
def serving(**behaviour: Any) -> Iterator[str]:
    """Runs the server in a process of its own; gives its base URL."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "benchmarks.oracle_server", json.dumps(behaviour)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def books(base_url: str) -> dict[str, Any]:
    """What the server saw so far."""
    with urllib.request.urlopen(f"{base_url}/books", timeout=30) as response:
        return json.loads(response.read())


def tell(base_url: str, **behaviour: Any) -> None:
    """Makes a new server of it, with this behaviour and empty books."""
    urllib.request.urlopen(urllib.request.Request(f"{base_url}/tell", json.dumps(behaviour).encode(), method="POST"), timeout=30).close()


async def _head(send: Send, status: int, headers: dict[str, str]) -> None:
    named = {"content-type": "application/json"} | headers
    await send({"type": "http.response.start", "status": status, "headers": [(k.encode(), v.encode()) for k, v in named.items()]})


async def _respond(send: Send, status: int, body: dict[str, Any] | bytes, headers: dict[str, str] | None = None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    await _head(send, status, (headers or {}) | {"content-length": str(len(data))})
    await send({"type": "http.response.body", "body": data})


def _multipart(body: bytes, content_type: str) -> bytes:
    """The content of the one file in a multipart form."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in body.split(b"--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            return content.removesuffix(b"\r\n")
    return b""


def main() -> None:
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(
        Server(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}), log_level="critical", access_log=False, lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
