"""A stand-in for an OpenAI-compatible server: chat and completions, by the rules of a `Behaviour`. Also the program `vllm`."""

from __future__ import annotations

import itertools
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
    finish: str | None = None
    """Said in place of `stop`."""
    aborts: int = 0
    """So many completions are cut off by the server itself."""
    models: tuple[str, ...] = ()
    """Names it serves; empty: it lists none."""
    root: str = ""
    limit: int | None = None
    key: str = ""
    """What /v1 wants to be called with."""
    greedy_n: bool = True
    """Whether several greedy samples may be asked for; vLLM refuses that."""
    no_template: bool = False
    """Whether it serves a base model, and refuses to chat."""
    stalled: bool = False
    """Its engine makes no token, while the server answers."""
    positions: int = 0
    """Positions of the model, a word of a prompt taking one; more than that is refused as vLLM does. 0: no end."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    dies_at: int = 0
    """Number of the completion at which the process exits; 0: never."""


NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template "
    "if the tokenizer does not define one."
)
RESPONSE = [("so", 62), ("7", 14)]
END = 6


def _choice(path: str, body: dict[str, Any], number: int, how: Behaviour) -> dict[str, Any]:
    cut = body["max_tokens"] < 3 or how.aborts > 0
    reason = ("abort" if how.aborts > 0 else "length") if cut else how.finish or "stop"
    pieces = RESPONSE[: body["max_tokens"]] if cut else RESPONSE
    how.aborts -= 1
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

    def _known(self) -> bool:
        """Whether the caller has the key, where there is one."""
        if not self.how.key or self.headers.get("Authorization") == f"Bearer {self.how.key}":
            return True
        self._send(401, {"error": {"message": "unauthorized"}})
        return False

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {})
        elif self.path == "/version":
            self._send(200, {"version": "0.0.fake"})
        elif self.path == "/metrics" and self.how.stalled:
            self._send_text('vllm:num_requests_running{engine="0"} 1.0\nvllm:generation_tokens_total{engine="0"} 5.0\n')
        elif self.path == "/v1/models" and self.how.models:
            if self._known():
                named = [{"id": name, "root": self.how.root, "max_model_len": self.how.limit} for name in self.how.models]
                self._send(200, {"object": "list", "data": named})
        else:
            self._send(404, {})

    def _send_text(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.how.requests.append(body)
        if not self._known():
            return None
        if self.how.stalled:
            time.sleep(3600)
        time.sleep(self.how.silent_s)
        if self.how.dies_at and len(self.how.requests) >= self.how.dies_at:
            os._exit(9)
        if self.how.failures:
            status, headers = self.how.failures.pop(0)
            return self._send(status, {"error": {"message": f"failure {status}"}}, headers)
        for name in self.how.refuses:
            if name in body:
                return self._send(400, {"error": {"message": f"unknown field {name}"}})
        if self.path == "/pooling":
            pooled = [{"index": index, "data": [float(ids[-1])]} for index, ids in enumerate(body["input"])]
            return self._send(200, {"data": pooled})
        if self.how.no_template and "messages" in body:
            return self._send(400, {"error": {"message": NO_TEMPLATE}})
        words = sum(len(message["content"].split()) for message in body.get("messages", ()))
        if self.path == "/tokenize":
            return self._send(200, {"count": words, "max_model_len": self.how.positions, "tokens": []})
        if self.how.positions and words + body["max_tokens"] > self.how.positions:
            return self._send(400, {"error": {"message": f"This model's maximum context length is {self.how.positions} tokens."}})
        if body["max_tokens"] < 0:
            return self._send(400, {"error": {"message": "max_tokens must be at least 1"}})
        if not self.how.greedy_n and body.get("n", 1) > 1 and body.get("temperature") == 0:
            return self._send(400, {"error": {"message": "n must be 1 when using greedy sampling"}})
        if self.how.models and body["model"] not in self.how.models:
            return self._send(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
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
    """`vllm serve MODEL … --port P`. FAKE_VLLM says how it misbehaves; a note of each start is kept in FAKE_VLLM_NOTES."""
    notes = Path(os.environ["FAKE_VLLM_NOTES"])
    starts = len(list(notes.glob("start.*")))
    started = {"arguments": arguments, "pid": os.getpid(), "python_path": os.environ.get("PYTHONPATH"), "setup": os.environ.get("SET_UP")}
    (notes / f"start.{starts}").write_text(json.dumps(started))
    print("fake vllm starts", flush=True)
    told, first = os.environ.get("FAKE_VLLM", ""), starts == 0
    if told == "broken":
        print(DEATH, flush=True)
        raise SystemExit(1)
    if told == "never ready":
        time.sleep(3600)
    if told == "port taken once" and first:
        print("OSError: [Errno 98] Address already in use", flush=True)
        raise SystemExit(1)
    given = dict(itertools.pairwise(arguments))
    dies_at = {"dies once": 3 if first else 0, "dies always": 1}.get(told, 0)
    how = Behaviour(dies_at=dies_at, ignores_n=True, greedy_n=False, models=(given["--served-model-name"],), limit=64)
    how.no_template = told == "no chat template"
    how.key, how.stalled, how.aborts = os.environ["VLLM_API_KEY"], told == "stalls once" and first, 1 if told == "aborts once" else 0
    server = ThreadingHTTPServer(("127.0.0.1", int(given["--port"])), type("Own", (Handler,), {"how": how}))
    if told in ("deaf once", "hangs once") and first:
        threading.Thread(target=_falls_silent, args=(server, how, told), daemon=True).start()
    server.serve_forever(0.01)
    time.sleep(3600)


def _falls_silent(server: ThreadingHTTPServer, how: Behaviour, told: str) -> None:
    """With the first completion the process lives on and no longer listens, or no longer answers."""
    how.silent_s = 3600
    while not how.requests:
        time.sleep(0.01)
    server.shutdown()
    if told == "deaf once":
        server.socket.close()


DEATH = """(EngineCore pid=7) ERROR 11-26 02:31:36 [core.py:953] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-26 02:31:36 [core.py:953] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.
Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
[rank0]:[W1126 ProcessGroupNCCL.cpp:1496] Warning: destroy_process_group() was not called before program exit"""


if __name__ == "__main__":
    vllm(sys.argv[1:])
