"""A stand-in for an OpenAI-compatible server: chat and completions, by the rules of a `Behaviour`. Also the program `vllm`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Behaviour:
    """How the server answers; `failures` are (status, headers) sent first, one a request."""

    ignores_n: bool = False
    refuses: tuple[str, ...] = ()
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    logprobs: bool = True
    choices: int | None = None
    token_ids: bool = True
    stop_in_ids: bool = True
    silent_s: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    dies_at: int = 0
    """Number of the completion at which the process exits; 0: never."""


RESPONSE = [("so", 62), ("7", 14)]
END = 6


def _choice(path: str, body: dict[str, Any], number: int, how: Behaviour) -> dict[str, Any]:
    cut = body["max_tokens"] < 3
    reason = "length" if cut else "stop"
    pieces = RESPONSE[: body["max_tokens"]] if cut else RESPONSE
    if path.endswith("/chat/completions"):
        content = [{"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []} for word, _ in pieces]
        logprobs = {"content": content} if how.logprobs and body.get("logprobs") else None
        message = {"role": "assistant", "content": " ".join(word for word, _ in pieces)}
        return {"index": number, "finish_reason": reason, "message": message, "logprobs": logprobs}
    ids = [token for _, token in pieces] + ([END] if not cut and how.stop_in_ids else [])
    told = {"tokens": [f"token_id:{token}" for token in ids], "token_logprobs": [-0.25] * len(ids), "top_logprobs": None, "text_offset": []}
    choice = {"index": number, "finish_reason": reason, "text": "so 7", "logprobs": told, "stop_reason": None if cut else END}
    return choice | ({"token_ids": ids} if how.token_ids else {})


class Handler(BaseHTTPRequestHandler):
    how: Behaviour
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self._send(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.how.requests.append(body)
        time.sleep(self.how.silent_s)
        if self.how.dies_at and len(self.how.requests) >= self.how.dies_at:
            os._exit(9)
        if self.how.failures:
            status, headers = self.how.failures.pop(0)
            return self._send(status, {"error": {"message": f"failure {status}"}}, headers)
        for name in self.how.refuses:
            if name in body:
                return self._send(400, {"error": {"message": f"unknown field {name}"}})
        n = 1 if self.how.ignores_n else body.get("n", 1)
        n = n if self.how.choices is None else self.how.choices
        choices = [_choice(self.path, body, number, self.how) for number in range(n)]
        self._send(200, {"id": "x", "object": "o", "created": 0, "model": body["model"], "choices": choices})
        return None


@contextmanager
def serving(how: Behaviour):
    """A server in this process; gives its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"how": how}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def vllm(arguments: list[str]) -> None:
    """`vllm serve MODEL … --port P`. The environment says when it dies; a note of each start is kept beside it."""
    notes = Path(os.environ["FAKE_VLLM_NOTES"])
    starts = len(list(notes.glob("start.*")))
    (notes / f"start.{starts}").write_text(json.dumps({"arguments": arguments, "pid": os.getpid()}))
    print("fake vllm starts", flush=True)
    if os.environ.get("FAKE_VLLM") == "broken":
        print("CUDA error: no kernel image", flush=True)
        raise SystemExit(1)
    dies_at = {"dies once": 3 if starts == 0 else 0, "dies always": 1}.get(os.environ.get("FAKE_VLLM", ""), 0)
    how = Behaviour(dies_at=dies_at, ignores_n=True)
    port = int(arguments[arguments.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), type("Own", (Handler,), {"how": how})).serve_forever()


if __name__ == "__main__":
    vllm(sys.argv[1:])
