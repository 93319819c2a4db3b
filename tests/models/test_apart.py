"""Tokenizers looked at in a process that has no torch, so that a launch neither waits for it nor holds its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.lab import environment
from tests.helpers.tiny import make_tiny

ASKED = """
import os, sys
from qup.errors import InputError
from qup.models import apart
from qup.models.load import load_tokenizer
from qup.models.probe import faults_as_loaded
from qup.config.schema import Model

apart.start()
model = Model(path=sys.argv[1], template="final_answer")
print(apart.apart(faults_as_loaded, model, False))
try:
    apart.apart(load_tokenizer, Model(path="/nowhere", template="final_answer"))
except InputError as error:
    print(error)
print("torch" in sys.modules, "transformers" in sys.modules)
other = apart._other()
if "killed" in sys.argv:
    other.kill()
    other.wait()
    print(apart.apart(faults_as_loaded, model, False), "torch" in sys.modules)
print(other.pid)
sys.stdout.flush()
os._exit(0)
"""


INTERRUPTED = """
import signal, subprocess, sys, time
from qup.models import apart

def stop(*_):
    raise KeyboardInterrupt

apart.apart(len, "ready")
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    apart.apart(time.sleep, 30)
except KeyboardInterrupt:
    print("interrupted")
print(apart.apart(len, "four"))
print(apart.apart(subprocess.Popen, ["true"]).wait())
print("torch" in sys.modules)
"""


def asked(model: Path, folder: Path, *how: str) -> list[str]:
    """What the script printed, run from another folder; it ends without a word to the other process."""
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(model), *how], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_other_process_answers_and_refuses_and_ends_with_the_one_that_asks(tmp_path: Path) -> None:
    made = make_tiny(tmp_path / "tiny")
    found = asked(made, tmp_path)
    assert found[0] == "[]"
    assert found[1].startswith("model.path=/nowhere:")
    assert found[2] == "False False", "the process that asks has neither"
    pid = int(found[3])
    assert not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")


def test_where_the_other_process_is_killed_the_one_that_asks_looks_itself(tmp_path: Path) -> None:
    found = asked(make_tiny(tmp_path / "tiny"), tmp_path, "killed")
    assert found[3] == "[] True"


def test_after_an_interrupted_question_the_next_gets_its_own_answer_and_one_that_cannot_be_sent_is_found_here(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["interrupted", "4", "0", "False"], done.stderr
    assert not done.stderr


def test_nothing_is_started_where_torch_is_here_already(monkeypatch) -> None:
    import torch  # noqa: F401

    from qup.models import apart

    def started() -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(apart, "_other", started)
    apart.start()
    assert apart.apart(os.getpid) == os.getpid()
