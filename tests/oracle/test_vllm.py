"""A served Oracle: started when first needed, restarted after a crash, stopped at the end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.oracle_server import books, serving
from qup.config.schema import Oracle
from qup.errors import InputError, Interrupted
from qup.generation import vllm as generation
from qup.oracle import OracleClient, open_oracle, sender, vllm
from tests.oracle.fakes import asks

ORACLE = Oracle(backend="vllm", model="some/model", max_retries=3, timeout_s=10)


class FakeServer:
    """The loopback server in place of vLLM's; may be restarted once, as that."""

    def __init__(self, lives: bool = True) -> None:
        self.url, self.starts, self.stops, self.lives = "", 0, 0, lives
        self._stack = contextlib.ExitStack()
        self._alive = False

    def start(self) -> str:
        self.starts += 1
        self.url = self._stack.enter_context(serving())
        self._alive = True
        if not self.lives:
            self.crash()
        return self.url

    def restart_if_dead(self) -> bool:
        if self._alive or self.starts > 1:
            return False
        self.start()
        return True

    def crash(self) -> None:
        self._stack.close()
        self._alive = False

    def stop(self) -> None:
        self.stops += 1
        self._stack.close()


def opened(patch: pytest.MonkeyPatch, folder: Path, server: FakeServer) -> OracleClient:
    patch.setattr(vllm, "vllm_server", lambda oracle, work, gpus, stopping: server)
    patch.setattr(sender, "_BACKOFF", lambda state: 0.02)
    return open_oracle(ORACLE, folder)


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


@pytest.mark.parametrize(("gpus", "split"), [("a100:4", ["--tensor-parallel-size", "4"]), ("1", []), ("0", [])])
def test_the_model_is_split_over_the_gpus_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: str, split: list[str]
) -> None:
    made: list[list[str]] = []

    def refuses(self: object, arguments: list[str], log: Path, stopping: Callable[[], bool]) -> None:
        made.append(arguments)
        raise Interrupted("asked to stop") if stopping() else AssertionError

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(generation.Server, "__init__", refuses)
    oracle = dataclasses.replace(ORACLE, revision="0123")
    with pytest.raises(Interrupted):
        vllm.vllm_server(oracle, tmp_path, gpus, lambda: True)
    assert made == [["some/model", "--served-model-name", "some/model", "--revision", "0123", *split]]


def test_a_stage_hands_its_gpus_and_its_signal_to_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[tuple[str, bool]] = []
    monkeypatch.setattr(vllm, "vllm_server", lambda oracle, work, gpus, stopping: handed.append((gpus, stopping())) or FakeServer())
    with open_oracle(ORACLE, tmp_path, gpus="a100:4", stopping=lambda: bool(handed)) as client, pytest.raises(Interrupted):
        list(client.ask(asks(1)))
    assert handed == [("a100:4", False)]


def test_where_vllm_is_not_installed_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_oracle(ORACLE, tmp_path) as client, pytest.raises(InputError, match="vllm"):
        list(client.ask(asks(1)))
