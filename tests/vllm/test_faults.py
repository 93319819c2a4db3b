"""A real vLLM server, killed and stopped in its parts, and beside another."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qup.config.schema import Model, Sampling, Vllm
from qup.errors import QupError
from qup.generation import Student, clamp, open_backend
from qup.serving import server as module
from tests.helpers.artifacts import context
from tests.helpers.fake_vllm import gone

SAMPLING = Sampling(n=4, backend="vllm", max_new_tokens=200, seed=3)
Workers = Callable[[int], dict[str, int]]


@pytest.fixture
def student(model: Path) -> Student:
    return Student.open(Model(path=str(model), template="tokenizer"), None)


def requests(student: Student, count: int):
    return clamp([student.request(str(p), f"find {p} ?", 4) for p in range(count)], student.context, 200, 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_an_engine_that_is_killed_or_stopped_costs_one_restart_and_no_response(
    student: Student, tmp_path: Path, vllm: Vllm, workers: Workers, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, caplog
) -> None:
    """A stopped engine's server answers its health probes all the same."""
    monkeypatch.setattr(module, "PROBE_S", 2.0)
    caplog.set_level("INFO", logger="qup")
    with open_backend(student, SAMPLING, context(tmp_path, log=logging.getLogger("qup")), vllm) as backend:
        server = backend.server
        (engine,) = [pid for name, pid in workers(server._process.pid).items() if "EngineCore" in name]
        found = {}
        for index, samples in backend.generate(requests(student, 120)):
            if not found:
                os.kill(engine, number)
            found[index] = samples
    assert len(found) == 120
    assert server.starts == 2
    assert "the vLLM server died: " in caplog.text
    assert gone(engine)


def test_an_api_server_that_is_stopped_is_found_by_its_silence(
    student: Student, tmp_path: Path, vllm: Vllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROBE_S", 1.0)
    monkeypatch.setattr(module, "PROBE_TIMEOUT_S", 3.0)
    with open_backend(student, SAMPLING, context(tmp_path), vllm) as backend:
        found = {}
        for index, samples in backend.generate(requests(student, 60)):
            if not found:
                os.kill(backend.server._process.pid, signal.SIGSTOP)
            found[index] = samples
    assert len(found) == 60
    assert backend.server.starts == 2


def test_two_servers_on_one_node_that_choose_the_same_port_part(
    student: Student, tmp_path: Path, vllm: Vllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stages that start at the same time; each of the two then asks its own server."""
    shared = module.free_port()
    ports = {name: iter([shared]) for name in ("first", "second")}
    honest = module.free_port
    monkeypatch.setattr(module, "free_port", lambda: next(ports[threading.current_thread().name], None) or honest())
    opened: dict[str, object] = {}

    def start() -> None:
        name = threading.current_thread().name
        opened[name] = open_backend(student, SAMPLING, context(tmp_path, name), vllm)

    threads = [threading.Thread(target=start, name=name) for name in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = opened["first"], opened["second"]
    try:
        assert first.server.port != second.server.port
        for backend in (first, second):
            assert len(dict(backend.generate(requests(student, 5)))) == 5
            assert backend.server.starts == 1
    finally:
        first.close()
        second.close()


def test_the_cause_of_a_death_at_the_start_is_the_headline(student: Student, tmp_path: Path, vllm: Vllm) -> None:
    greedy = replace(vllm, args={**vllm.args, "gpu-memory-utilization": 1.0}, setup=["export VLLM_CPU_KVCACHE_SPACE=4000"])
    with pytest.raises(QupError, match=r"ended with status \d+: \w*Error: .*memory"):
        open_backend(student, SAMPLING, context(tmp_path), greedy)


def test_asked_to_stop_while_it_starts_it_is_gone_in_seconds(student: Student, tmp_path: Path, vllm: Vllm) -> None:
    began = time.monotonic()
    with pytest.raises(module.Interrupted):
        open_backend(student, SAMPLING, context(tmp_path, stopping=lambda: time.monotonic() - began > 8), vllm)
    assert time.monotonic() - began < 8 + module.STOP_S + 5
