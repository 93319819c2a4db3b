"""Generation through a vLLM server that we start; the program is a stand-in with the same interface."""

import os
import signal
from dataclasses import replace
from itertools import pairwise

import pytest

from qup.config.schema import Model, Resources, Sampling, Vllm
from qup.errors import InputError, Interrupted, QupError
from qup.generation import Student, clamp, open_backend
from qup.generation import vllm as backend_module
from qup.serving import server
from tests.helpers import fake_vllm
from tests.helpers.artifacts import context
from tests.helpers.fake_server import END
from tests.helpers.fake_vllm import flag, gone, starts
from tests.helpers.tiny import make_tiny


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return Student.open(Model(path=str(make_tiny(tmp_path_factory.mktemp("tiny"))), template="tokenizer"), None)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    return fake_vllm.install(tmp_path / "venv", monkeypatch)


@pytest.fixture
def opened(student, environment, tmp_path):
    """Opens a backend over the stand-in."""

    def made(sampling=None, *, vllm=None, **settings):
        settings = {"stopping": lambda: False} | settings
        ctx = context(tmp_path, **settings)
        return open_backend(student, sampling or SAMPLING, ctx, replace(vllm or Vllm(), command=str(environment)))

    return made


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    import tenacity

    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: lambda state: 0.01)


SAMPLING = Sampling(n=2, backend="vllm", max_new_tokens=20, seed=1, top_k=5)


def requests(student, count=2):
    return clamp([student.request(f"p{i}", f"find {i}", 2) for i in range(count)], student.context, 20, 1)


def test_it_serves_asks_with_token_ids_and_stops(student, opened, environment):
    with opened(resources=Resources(gpus="a100:2")) as backend:
        found = dict(backend.generate(requests(student)))
    assert {index: len(samples) for index, samples in found.items()} == {0: 2, 1: 2}
    one = found[0][0]
    assert one.token_ids == (62, 14, END)
    assert one.logprob_T == (-0.25,) * 3
    assert one.finish == "stop"
    assert student.text(one) == "= 7"
    (start,) = starts(environment)
    assert start["arguments"][:2] == ["serve", student.model.path]
    assert [flag(start, name) for name in ("max-model-len", "generation-config", "data-parallel-size")] == ["256", "vllm", "2"]
    assert gone(start["pid"])


def test_copies_of_a_student_may_be_split_and_flags_are_passed(opened, environment):
    sampling = replace(SAMPLING, vllm={"quantization": "fp8"})
    vllm = Vllm(tensor_parallel=4, args={"gpu-memory-utilization": 0.8})
    with opened(sampling, vllm=vllm, resources=Resources(gpus="8")) as backend:
        facts = backend.facts
    (start,) = starts(environment)
    assert [flag(start, name) for name in ("tensor-parallel-size", "data-parallel-size")] == ["4", "2"]
    assert {"version": "0.0.fake", "backend": "vllm"}.items() <= facts.items()
    assert ("--quantization", "fp8") in pairwise(facts["flags"])
    with pytest.raises(InputError, match=r"vllm.tensor_parallel=4: must divide the 6 GPUs"):
        opened(sampling, vllm=vllm, resources=Resources(gpus="6"))


def test_more_gpus_are_asked_more_at_a_time(opened, monkeypatch):
    asked = []
    monkeypatch.setattr(backend_module, "fan_out", lambda *args: asked.append(args[-1]) or iter(()))
    for gpus in ("1", "8"):
        with opened(replace(SAMPLING, n=8), resources=Resources(gpus=gpus)) as backend:
            list(backend.generate(clamp([], 256, 20, 1)))
    assert asked == [32, 256]


def test_greedy_responses_are_asked_for_once_and_repeated(student, opened):
    """vLLM refuses n > 1 at temperature 0."""
    with opened(replace(SAMPLING, temperature=0.0)) as backend:
        found = dict(backend.generate(requests(student)))
    assert all(samples[0] == samples[1] for samples in found.values())


def test_after_a_refusal_the_next_shard_is_served(student, opened):
    with opened() as backend:
        good = requests(student, 40)
        bad = replace(good, room=(-1, *good.room[1:]))
        with pytest.raises(InputError, match="refuses problem"):
            dict(backend.generate(bad))
        assert len(dict(backend.generate(requests(student)))) == 2


def test_a_response_that_the_server_aborted_is_asked_for_anew(student, opened, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "aborts once")
    with opened() as backend:
        found = dict(backend.generate(requests(student)))
    assert {sample.finish for samples in found.values() for sample in samples} == {"stop"}


def test_a_crashed_server_is_started_anew_once(student, opened, environment, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "dies once")
    with opened() as backend:
        found = dict(backend.generate(requests(student, 5)))
        assert len(starts(environment)) == 2
        again = dict(backend.generate(requests(student, 2)))
    assert (len(found), len(again)) == (5, 2)
    assert len(starts(environment)) == 2
    assert all(gone(start["pid"]) for start in starts(environment))


def test_a_server_that_dies_again_is_given_up(student, opened, environment, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "dies always")
    with opened() as backend, pytest.raises(QupError, match="died twice"):
        dict(backend.generate(requests(student, 1)))
    assert len(starts(environment)) == 2


@pytest.mark.parametrize("told", ["hangs once", "stalls once", "deaf once"])
def test_a_server_that_hangs_costs_seconds_and_no_response(student, opened, monkeypatch, told):
    monkeypatch.setattr(server, "PROBE_S", 0.05)
    monkeypatch.setattr(server, "PROBE_TIMEOUT_S", 0.7)
    monkeypatch.setenv("FAKE_VLLM", told)
    with opened(vllm=Vllm(stall_s=0.2)) as backend:
        found = dict(backend.generate(requests(student, 3)))
    assert len(found) == 3


def test_it_stops_while_the_server_starts(opened, environment):
    with pytest.raises(Interrupted, match="starting"):
        opened(stopping=lambda: True)
    assert all(gone(start["pid"]) for start in starts(environment))


def test_requests_leave_no_line_each_in_the_log(student, opened, caplog):
    caplog.set_level("INFO")
    with opened() as backend:
        dict(backend.generate(requests(student, 5)))
    assert not [record for record in caplog.records if record.name.startswith(("httpx", "openai"))]


def test_a_signal_that_ends_stage_and_server_together_is_an_interruption(student, opened, environment):
    """As SLURM sends it, to every process of a step: the server is gone before the stage was told to stop."""
    stops = []
    with opened(stopping=lambda: bool(stops)) as backend, pytest.raises(Interrupted):
        for _ in backend.generate(requests(student, 40)):
            if not stops:
                os.kill(starts(environment)[0]["pid"], signal.SIGTERM)
                stops.append(True)
    assert all(gone(start["pid"]) for start in starts(environment))
