"""Scores from a pooling server, against a stub that answers as vLLM does."""

from __future__ import annotations

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qup.config.schema import Reward
from qup.errors import InputError, Interrupted
from qup.scoring import pooling
from qup.scoring.pooling import PoolingServer, reward_flags
from tests.helpers.tiny import tiny_config

RM = Reward(path="org/RM", format="skywork_v2", max_length=100)


@pytest.fixture
def server():
    """`state["reply"]` makes the answer to a /pooling body, or an HTTP status."""
    state = {"bodies": [], "reply": None, "model": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send(200, {"data": [{"id": "org/rm", **state["model"]}]} if self.path == "/v1/models" else {})

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
    assert PoolingServer(server["url"], RM, "rm").score(sequences) == [float(index) for index in range(10)]
    assert sorted(len(body["input"]) for _, body in server["bodies"]) == [2, 4, 4]
    path, body = server["bodies"][0]
    assert path == "/pooling"
    assert (body["model"], body["use_activation"]) == ("org/rm", False)


def test_a_server_that_falters_is_asked_again(server):
    replies = iter([503, 429])
    server["reply"] = lambda body: next(replies, None) or last_token(body)
    assert PoolingServer(server["url"], RM, "rm", pause_s=0.01).score([[5]]) == [5.0]


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
        PoolingServer(server["url"], RM, "rm", pause_s=0.001).score([[5]])


def test_no_server(monkeypatch):
    with pytest.raises(InputError, match=r"127.0.0.1:9/v1/models: .*--runner pooling"):
        PoolingServer("http://127.0.0.1:9", RM, "rm", pause_s=0.001)


def test_the_servers_own_limit_counts(server):
    assert PoolingServer(server["url"], RM, "rm").limit == 100
    server["model"] = {"max_model_len": 64}
    assert PoolingServer(server["url"], RM, "rm").limit == 64


@pytest.mark.parametrize(
    "settings",
    [{"path": "/models/Org-RM"}, {"path": "a/rm"}, {"served_model": "org/rm"}, {"path": "Qwen/Qwen2.5-Math-RM-72B"}],
)
def test_a_server_is_recognised_by_name_or_root_or_as_the_config_says(server, settings):
    server["model"] = {
        "root": "/hub/models--Qwen--Qwen2.5-Math-RM-72B/snapshots/0123abc" if "Qwen" in str(settings) else "/elsewhere/org-rm"
    }
    assert PoolingServer(server["url"], dataclasses.replace(RM, **settings), "rm").model == "org/rm"


@pytest.mark.parametrize("settings", [{"path": "a/skywork"}, {"served_model": "b"}])
def test_a_server_of_another_model_scores_nothing(server, settings):
    with pytest.raises(InputError, match=r"reward.rm.*serves org/rm"):
        PoolingServer(server["url"], dataclasses.replace(RM, **settings), "rm")
    assert server["bodies"] == []


def test_it_stops_between_requests(server):
    server["reply"] = last_token
    with pytest.raises(Interrupted):
        PoolingServer(server["url"], RM, "rm", stopping=lambda: True).score([[5]])


def test_a_server_of_our_own_pools_within_the_models_positions_and_takes_no_causal_model(tmp_path):
    tiny_config("qwen2").save_pretrained(tmp_path)
    reward = Reward(path=str(tmp_path), format="qwen25_math_rm", trust_remote_code=True, max_length=4096, vllm={"quantization": "fp8"})
    place, flags = reward_flags(reward, "rm", None, 4)
    assert place == str(tmp_path)
    assert flags == {
        "runner": "pooling",
        "dtype": "bfloat16",
        "max-model-len": 256,
        "trust-remote-code": True,
        "tensor-parallel-size": 4,
        "quantization": "fp8",
    }
    with pytest.raises(InputError, match=r"reward.rm.backend=vllm: the score of format nemotron is no pooled output"):
        reward_flags(Reward(path=str(tmp_path), format="nemotron"), "rm", None, 1)
