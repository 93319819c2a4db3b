"""A stage that has a server, told to stop or killed while the server starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qup.config.schema import Benchmark, Evaluation, Model, Resources, Sampling, Vllm
from qup.config.views import ResponsesView
from qup.launch.job import Job
from qup.launch.process import INTERRUPTED
from qup.pipeline.nodes import Ref
from qup.store import Store
from tests.helpers import fake_vllm
from tests.helpers.tiny import make_tiny


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["told", "killed"])
def test_its_server_goes_with_it_and_its_lease_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Ctrl-C comes to a stage as SIGTERM."""
    environment = fake_vllm.install(tmp_path / "venv", monkeypatch)
    monkeypatch.setenv("FAKE_VLLM", "never ready")
    benchmark = tmp_path / "b.jsonl"
    benchmark.write_text(json.dumps({"question": "find 3", "answer": "3"}) + "\n")
    evaluation = Evaluation(benchmarks={"b": Benchmark(path=str(benchmark))}, sampling=Sampling(backend="vllm", max_new_tokens=20, seed=0))
    model = Model(path=str(make_tiny(tmp_path / "model")), template="tokenizer")
    view = ResponsesView(model, evaluation, vllm=Vllm(command=str(environment)))
    ref = Ref("responses", "0" * 16)
    job = Job("s", tmp_path / "s", tmp_path / "store", 60.0, ref, "cell", view, {}, {}, Resources())
    job.save()
    stage = subprocess.Popen([sys.executable, "-m", "qup.launch.process", str(job.path)])
    try:
        while not fake_vllm.starts(environment):
            assert stage.poll() is None
            time.sleep(0.05)
        os.kill(stage.pid, number)
        assert stage.wait(15) == (INTERRUPTED if number == signal.SIGTERM else -number)
    finally:
        stage.kill()
    assert all(fake_vllm.gone(start["pid"]) for start in fake_vllm.starts(environment))
    if number == signal.SIGTERM:
        began = time.monotonic()
        lease = Store(job.store, 60.0).acquire(*ref, {}, lambda: time.monotonic() - began > 20)
        assert lease is not None, "the next launch need not wait until the lease counts as abandoned"
        lease.release()
