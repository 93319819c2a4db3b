"""Generation through a vLLM server that we start; the program on PATH is a stand-in with the same interface."""

import json
import logging
import os
import sys
import time
from pathlib import Path

import pytest

from qup.config.schema import Model, Resources, Sampling
from qup.errors import InputError, Interrupted, QupError
from qup.generation import Student, clamp, open_backend
from qup.generation.vllm import count_gpus
from tests.generation.fake_server import END
from tests.helpers.artifacts import context
from tests.helpers.tiny import make_tiny

SERVER = Path(__file__).with_name("fake_server.py")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return Student.open(Model(path=str(make_tiny(tmp_path_factory.mktemp("tiny"))), template="tokenizer"), None)


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """Puts the stand-in on PATH; the folder where it notes its starts."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{SERVER}" "$@"\n')
    program.chmod(0o755)
    folder = tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_VLLM_NOTES", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    import tenacity

    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: lambda state: 0.01)


SAMPLING = Sampling(n=2, backend="vllm", max_new_tokens=20, seed=1, top_k=5)


def requests(student, count=2):
    return clamp([student.request(f"p{i}", f"find {i}", 2) for i in range(count)], student.context, 20, 1)


def starts(notes):
    return [json.loads(path.read_text()) for path in sorted(notes.glob("start.*"))]


def gone(pid):
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_it_serves_asks_with_token_ids_and_stops(student, notes, tmp_path):
    with open_backend(student, SAMPLING, context(tmp_path, resources=Resources(gpus="a100:2"))) as backend:
        found = dict(backend.generate(requests(student)))
    assert {index: len(samples) for index, samples in found.items()} == {0: 2, 1: 2}
    one = found[0][0]
    assert one.token_ids == (62, 14, END)
    assert one.logprob_T == (-0.25,) * 3
    assert one.finish == "stop"
    assert student.text(one) == "= 7"
    (start,) = starts(notes)
    assert start["arguments"][0] == "serve"
    assert start["arguments"][1] == student.model.path
    told = dict(zip(start["arguments"], start["arguments"][1:]))
    assert told["--max-model-len"] == "256"
    assert told["--generation-config"] == "vllm"
    assert told["--data-parallel-size"] == "2"
    assert gone(start["pid"])


def test_a_crashed_server_is_started_anew_once(student, notes, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "dies once")
    with open_backend(student, SAMPLING, context(tmp_path)) as backend:
        found = dict(backend.generate(requests(student, 5)))
        assert len(starts(notes)) == 2
        again = dict(backend.generate(requests(student, 2)))
    assert len(found) == 5
    assert len(again) == 2
    assert len(starts(notes)) == 2
    assert all(gone(start["pid"]) for start in starts(notes))


def test_a_server_that_dies_again_is_given_up(student, notes, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "dies always")
    with open_backend(student, SAMPLING, context(tmp_path)) as backend, pytest.raises(QupError, match="died twice"):
        dict(backend.generate(requests(student, 1)))
    assert len(starts(notes)) == 2


def test_a_server_that_does_not_come_up_shows_the_end_of_its_log(student, notes, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "broken")
    with pytest.raises(QupError, match=r"ended with status 1[\s\S]*no kernel image"):
        open_backend(student, SAMPLING, context(tmp_path))


def test_it_stops_while_the_server_starts(student, notes, tmp_path):
    with pytest.raises(Interrupted, match="starting"):
        open_backend(student, SAMPLING, context(tmp_path, stopping=lambda: True))
    assert all(gone(start["pid"]) for start in starts(notes))


def test_without_the_program_it_says_what_to_do(student, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no program vllm on PATH; pip install"):
        open_backend(student, SAMPLING, context(tmp_path, log=logging.getLogger("quiet")))


@pytest.mark.parametrize(("visible", "asked", "count"), [("0,3", "8", 2), (None, "a100:4", 4), (None, "2", 2), (None, "0", 1)])
def test_gpus_are_those_visible_else_those_asked_for(monkeypatch, visible, asked, count):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus(asked) == count
