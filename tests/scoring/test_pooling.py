"""Scores from a pooling server, against a stub that answers as vLLM does."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qup.config.schema import Reward
from qup.errors import InputError
from qup.scoring import pooling
from qup.scoring.pooling import PoolingServer, serve_arguments


@pytest.fixture
def server():
    """`state["reply"]` makes the answer to a /pooling body, or an HTTP status."""
    state = {"bodies": [], "reply": None}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send(200, {"data": [{"id": "org/rm"}]} if self.path == "/v1/models" else {})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state["bodies"].append((self.path, body))
            made = state["reply"](body)
            self.send(made, {"error": "no"}) if isinstance(made, int) else self.send(200, made)

        def send(self, status, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state["url"] = f"http://127.0.0.1:{running.server_port}/v1"
    yield state
    running.shutdown()
    running.server_close()
    thread.join()


def per_token(body):
    """All tokens are pooled, as for Qwen2.5-Math-RM; entries come in any order."""
    entries = [{"index": index, "data": [[float(token)] for token in ids]} for index, ids in enumerate(body["input"])]
    return {"data": entries[::-1]}


def last_token(body):
    return {"data": [{"index": index, "data": [float(ids[-1])]} for index, ids in enumerate(body["input"])]}


@pytest.mark.parametrize("reply", [per_token, last_token])
def test_the_last_tokens_output_in_the_order_asked(server, reply, monkeypatch):
    monkeypatch.setattr(pooling, "BATCH", 4)
    server["reply"] = reply
    sequences = [[9, index] for index in range(10)]
    assert PoolingServer(server["url"]).score(sequences) == [float(index) for index in range(10)]
    assert [len(body["input"]) for _, body in server["bodies"]] == [4, 4, 2]
    path, body = server["bodies"][0]
    assert path == "/pooling"
    assert (body["model"], body["use_activation"]) == ("org/rm", False)


def test_a_server_that_falters_is_asked_again(server):
    replies = iter([503, 429])
    server["reply"] = lambda body: next(replies, None) or last_token(body)
    assert PoolingServer(server["url"], pause_s=0.01).score([[5]]) == [5.0]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (lambda body: 404, r"/pooling: 404"),
        (lambda body: {"data": []}, r"1 scores asked for"),
        (lambda body: {"data": [{"index": 0, "data": [0.1, 0.9]}]}, r"two labels"),
        (lambda body: {"data": [{"index": 0, "data": [0.1, 0.9, 3.0]}]}, r"one number a token expected"),
        (lambda body: 500, r"--runner pooling"),
    ],
)
def test_what_is_no_score_is_said(server, reply, message):
    server["reply"] = reply
    with pytest.raises(InputError, match=message):
        PoolingServer(server["url"], pause_s=0.001).score([[5]])


def test_no_server(monkeypatch):
    with pytest.raises(InputError, match=r"127.0.0.1:9/v1/models: .*--runner pooling"):
        PoolingServer("http://127.0.0.1:9", pause_s=0.001)


def test_a_server_of_our_own_pools_and_takes_no_causal_model(tmp_path):
    reward = Reward(path=str(tmp_path), format="qwen25_math_rm", trust_remote_code=True, max_length=4096)
    found = serve_arguments(reward, "rm", None, 4)
    assert found[:3] == [str(tmp_path), "--runner", "pooling"]
    assert found[-3:] == ["--trust-remote-code", "--tensor-parallel-size", "4"]
    with pytest.raises(InputError, match=r"reward.rm.backend=vllm: the score of format nemotron is no pooled output"):
        serve_arguments(Reward(path=str(tmp_path), format="nemotron"), "rm", None, 1)
