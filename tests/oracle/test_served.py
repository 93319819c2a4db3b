"""A served Oracle: started when first needed, restarted after a crash, stopped at the end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.oracle_server import books, serving
from qup.config.schema import Oracle, Vllm
from qup.errors import InputError, Interrupted
from qup.oracle import Ask, OracleClient, open_oracle, sender
from qup.oracle.served import ServedBackend
from qup.serving.facts import noted
from tests.helpers import fake_vllm
from tests.helpers.fake_server import Behaviour
from tests.helpers.fake_server import serving as fake_serving
from tests.helpers.fake_vllm import flag, gone, starts
from tests.oracle.fakes import asks

ORACLE = Oracle(backend="vllm", model="some/model", max_retries=3, timeout_s=10)


class FakeServer:
    """The loopback server in place of vLLM's; may be revived once, as that."""

    model, key, facts = "oracle-0123", "k", {"version": "0.0.fake"}

    def __init__(self, lives: bool = True) -> None:
        self.url, self.starts, self.stops, self.lives = "", 0, 0, lives
        self._stack = contextlib.ExitStack()
        self._alive = False

    def start(self) -> None:
        self.starts += 1
        self.url = self._stack.enter_context(serving()).removesuffix("/v1")
        self._alive = True
        if not self.lives:
            self.crash()

    def revive(self) -> bool:
        if self._alive or self.starts > 1:
            return False
        self.start()
        return True

    def crash(self) -> None:
        self._stack.close()
        self._alive = False

    def close(self) -> None:
        self.stops += 1
        self._stack.close()


def opened(patch: pytest.MonkeyPatch, folder: Path, server: FakeServer, **settings: Any) -> OracleClient:
    patch.setattr(ServedBackend, "_own", lambda self: server)
    patch.setattr(sender, "_BACKOFF", lambda state: 0.02)
    return open_oracle(dataclasses.replace(ORACLE, **settings), folder)


def test_the_server_runs_only_while_something_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    for _ in range(2):
        with opened(monkeypatch, tmp_path, server) as client:
            assert len(list(client.ask(asks(*range(20))))) == 20
    assert (server.starts, server.stops) == (1, 1), "the second time every answer was stored"


def test_a_crashed_server_is_started_again_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    with opened(monkeypatch, tmp_path, server) as client:
        for count, _ in enumerate(client.ask(asks(*range(200))), 1):
            if count == 50:
                server.crash()
    assert count == 200
    assert (server.starts, server.stops) == (2, 1)


def test_a_server_that_keeps_crashing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(lives=False)
    with opened(monkeypatch, tmp_path, server) as client, pytest.raises(InputError, match="vLLM serving some/model"):
        list(client.ask(asks(*range(50))))
    assert (server.starts, server.stops) == (2, 1)


def test_a_server_that_runs_already_is_asked_and_left_alone(tmp_path: Path, behaving: Callable[..., str]) -> None:
    url = behaving()
    with open_oracle(Oracle(backend="vllm", model="some/model", base_url=url), tmp_path) as client:
        assert len(list(client.ask(asks(1, 2)))) == 2
    assert books(url)["good"] == 2


def served_by_fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_vllm.install(tmp_path / "venv", monkeypatch)


@pytest.mark.parametrize(("gpus", "split"), [("a100:4", "4"), ("1", None)])
def test_the_model_is_split_over_the_gpus_of_the_stage_and_asked_by_its_random_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: str, split: str | None
) -> None:
    environment = served_by_fake(tmp_path, monkeypatch)
    oracle = dataclasses.replace(ORACLE, revision="0123", vllm={"quantization": "fp8"}, chat_template="{{ messages }}\n")
    vllm = Vllm(command=str(environment), args={"max-num-seqs": 3})
    with open_oracle(oracle, tmp_path, gpus=gpus, vllm=vllm, ledger=tmp_path / "ledger") as client:
        assert len(list(client.ask(asks(1, 2)))) == 2
    (start,) = starts(environment)
    assert start["arguments"][1] == "some/model"
    assert [flag(start, name) for name in ("revision", "quantization", "max-num-seqs")] == ["0123", "fp8", "3"]
    assert Path(flag(start, "chat-template")).read_text() == "{{ messages }}\n"
    assert ("--tensor-parallel-size" in start["arguments"]) == (split is not None)
    assert split is None or flag(start, "tensor-parallel-size") == split
    assert noted(tmp_path / "ledger")["served"]["version"] == "0.0.fake"


def test_an_oracle_that_is_a_folder_is_known_by_its_content_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    for place in ("/first/place", "/second/place"):
        with opened(monkeypatch, tmp_path, server, model="abcd", content="abcd", path=place) as client:
            assert len(list(client.ask(asks(*range(5))))) == 5
    assert server.starts == 1, "the second time every answer was stored"


def test_a_stage_hands_its_signal_to_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = served_by_fake(tmp_path, monkeypatch)
    stops = iter([False, False])
    client = open_oracle(ORACLE, tmp_path, stopping=lambda: next(stops, True), vllm=Vllm(command=str(environment)))
    with client, pytest.raises(Interrupted, match="starting"):
        list(client.ask(asks(1)))
    assert all(gone(start["pid"]) for start in starts(environment))


def test_where_vllm_is_not_installed_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_oracle(ORACLE, tmp_path) as client, pytest.raises(InputError, match="vllm"):
        list(client.ask(asks(1)))


def test_a_server_of_another_model_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    how = Behaviour(models=("org/other",))
    said = pytest.raises(InputError, match=r"serves org/other; oracle.model=some/model is none of them")
    with fake_serving(how) as url, open_oracle(dataclasses.replace(ORACLE, base_url=url), tmp_path) as client, said:
        list(client.ask(asks(1)))
    assert how.requests == []


def test_a_base_model_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = served_by_fake(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_VLLM", "no chat template")
    said = pytest.raises(InputError, match=r"oracle.model=some/model: has no chat template, so it is a base model")
    with open_oracle(ORACLE, tmp_path, vllm=Vllm(command=str(environment))) as client, said:
        list(client.ask(asks(1)))


def test_an_answer_is_cut_to_what_the_prompt_leaves_and_counted(tmp_path: Path) -> None:
    """Else long problems drop out of every arm."""
    how = Behaviour(models=("some/model",), positions=100)
    short, long, hopeless = ([{"role": "user", "content": "word " * words}] for words in (10, 30, 90))
    questions = [Ask(name, "refine", messages) for name, messages in (("short", short), ("long", long), ("hopeless", hopeless))]
    oracle = dataclasses.replace(ORACLE, max_tokens=80)
    with fake_serving(how) as url, open_oracle(dataclasses.replace(oracle, base_url=url), tmp_path, ledger=tmp_path / "ledger") as client:
        answers = {ask.id: answer for ask, answer in client.ask(questions)}
    assert {name: answer.finish for name, answer in answers.items()} == {"short": "stop", "long": "stop", "hopeless": "error"}
    chats = [body["max_tokens"] for body in how.requests if "max_tokens" in body]
    assert sorted(chats) == [70, 80, 80, 80]
    assert noted(tmp_path / "ledger")["served"]["clamped"] == 1
