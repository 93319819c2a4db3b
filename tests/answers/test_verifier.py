"""Computer algebra in child processes: it never hangs, never crashes us, and works anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import qup.answers.verifier as module
from benchmarks.answers import hostile
from qup.answers.verifier import VERDICTS, Verifier
from qup.errors import QupError

ROOT = Path(__file__).parents[2]
ALGEBRA = [
    ("x+1", "1+x", "symbolic"),
    ("(x+1)^2", "x^2+2x+1", "symbolic"),
    ("\\sqrt{12}", "2\\sqrt3", "symbolic"),
    ("2\\sqrt{3}\\text{ cm}", "2\\sqrt3", "symbolic"),
    ("7\\pi \\text{ cm}^2", "7\\pi", "symbolic"),
    ("x=5", "5", "symbolic"),
    ("\\{1,2\\}", "2,1", "symbolic"),
    ("-3 \\text{ or } 5", "-3,5", "symbolic"),
    ("\\text{Yes}", "yes", "equal"),
    ("4t", "4", "wrong"),
    ("2ab", "2", "wrong"),
    ("5 million", "5", "wrong"),
    ("2 thirds", "2", "undecided"),
    ("\\frac{1}{3}h", "\\frac13", "wrong"),
    ("x^2", "x^3", "wrong"),
    ("7\\pi", "22", "wrong"),
    ("the answer is 5", "5", "symbolic"),
]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(5.0, workers=1) as verifier:
        yield verifier


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_judges_what_takes_algebra(verifier: Verifier) -> None:
    got = verifier.verdicts([(answer, gold) for answer, gold, _ in ALGEBRA])
    assert list(zip([case[:2] for case in ALGEBRA], got)) == [((answer, gold), verdict) for answer, gold, verdict in ALGEBRA]


def test_verdicts_come_in_the_order_asked_and_repeats_are_asked_once(verifier: Verifier) -> None:
    before = verifier.counts["symbolic"]
    got = verifier.verdicts([("y+2", "2+y"), ("", "3"), ("3", "3"), ("y+2", "2+y"), ("$y+2$", "2+y"), ("4", "3")])
    assert got == ["symbolic", "no_answer", "equal", "symbolic", "symbolic", "wrong"]
    assert verifier.counts["symbolic"] - before == 1
    verifier.verdicts([("y+2", "2+y")])
    assert verifier.counts["symbolic"] - before == 1


def test_no_child_is_started_for_numbers() -> None:
    with Verifier() as verifier:
        assert verifier.verdicts([("12", "12"), ("12", "13"), ("0.5", "\\frac12"), ("", "4")]) == ["equal", "wrong", "equal", "no_answer"]
        assert verifier._children == []


def test_hostile_answers_go_through_and_it_still_works_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Verifier(0.5, workers=2) as verifier:
        got = verifier.verdicts(hostile()[1::2])  # all of them: python -m benchmarks.answers
        assert len(got) > 10
        assert set(got) <= set(VERDICTS) - {"equal", "symbolic"}
        assert verifier.counts["timeouts"] == got.count("timeout") >= 2
        assert verifier.verdicts([("z+1", "1+z")]) == ["symbolic"]
    assert capfd.readouterr() == ("", "")


def test_a_time_out_costs_its_own_pair_only(verifier: Verifier) -> None:
    pairs = [("a+1", "1+a"), ("\\sum_{i=1}^{2000} \\sum_{j=1}^{2000} \\frac{1}{i+j}", "a+1"), ("a+2", "2+a"), ("a+3", "4+a")]
    with Verifier(1.0, workers=1) as quick:
        assert quick.verdicts(pairs) == ["symbolic", "timeout", "symbolic", "wrong"]
        assert quick.counts == {"symbolic": 4, "timeouts": 1, "crashes": 0}


def test_works_in_several_threads_at_once(verifier: Verifier) -> None:
    got: dict[int, list[str]] = {}

    def ask(k: int) -> None:
        got[k] = verifier.verdicts([(f"{k}b+{i}", f"{i}+{k}b") for i in range(10)])

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(2, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == {k: ["symbolic"] * 10 for k in range(2, 5)}


def test_outlives_the_thread_that_started_its_child() -> None:
    with Verifier(workers=1) as verifier:
        thread = threading.Thread(target=verifier.verdicts, args=([("x+1", "1+x")],))
        thread.start()
        thread.join(60)
        first = verifier._children[0].process.pid
        assert verifier.verdicts([("x+2", "2+x")]) == ["symbolic"]
        assert verifier._children[0].process.pid == first


def test_a_forked_process_has_children_of_its_own(verifier: Verifier) -> None:
    assert verifier.verdicts([("c+1", "1+c")]) == ["symbolic"]
    ours = verifier._children[0].process.pid
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            got = verifier.verdicts([("c+2", "2+c")])
            code = 0 if got == ["symbolic"] and verifier._children[0].process.pid != ours else 2
            verifier.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert verifier.verdicts([("c+3", "3+c")]) == ["symbolic"]
    assert verifier._children[0].process.pid == ours


def test_a_child_killed_by_someone_else_is_replaced(verifier: Verifier) -> None:
    verifier.verdicts([("d+1", "1+d")])
    os.kill(verifier._children[0].process.pid, signal.SIGKILL)
    assert verifier.verdicts([("d+2", "2+d"), ("d+3", "3+d")]) == ["symbolic", "symbolic"]
    assert verifier.counts["crashes"] == 0


def test_signals_for_the_stage_leave_its_children_alone(verifier: Verifier) -> None:
    verifier.verdicts([("k+1", "1+k")])
    pid = verifier._children[0].process.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        os.kill(pid, number)
    assert verifier.verdicts([("k+2", "2+k")]) == ["symbolic"]
    assert verifier._children[0].process.pid == pid


def test_a_pair_that_crashes_its_child_twice_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "child.py"
    fake.write_text(
        textwrap.dedent("""
        import json, os, sys
        print("ready", flush=True)
        for line in sys.stdin:
            for answer, gold in json.loads(line):
                if answer == "boom + x":
                    os.abort()
                print(1, flush=True)
        """)
    )
    monkeypatch.setattr(module, "_command", lambda timeout_s: [sys.executable, str(fake)])
    with Verifier(workers=1) as verifier:
        assert verifier.verdicts([("x + 1", "y"), ("boom + x", "y"), ("x + 2", "y")]) == ["symbolic", "wrong", "symbolic"]
        assert verifier.counts["crashes"] == 1


def test_a_child_that_gets_no_cpu_is_given_up_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    with Verifier(workers=1) as verifier:
        verifier.verdicts([("x+1", "1+x")])
        stopped = verifier._children[0].process.pid

        def wait_longer(child: module._Child) -> None:
            child.deadline = time.monotonic() + (0.5 if child.process.pid == stopped else 60)

        monkeypatch.setattr(module._Child, "_wait_longer", wait_longer)
        os.kill(stopped, signal.SIGSTOP)
        assert verifier.verdicts([("x+2", "2+x"), ("x+3", "3+x")]) == ["timeout", "symbolic"]
        assert verifier.counts["timeouts"] == 1


def test_a_child_that_cannot_start_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_command", lambda timeout_s: [sys.executable, "-c", "raise ImportError('no math_verify here')"])
    with Verifier() as verifier, pytest.raises(QupError, match="does not start: ImportError: no math_verify here"):
        verifier.verdicts([("x+1", "1+x")])
    assert verifier._children == []


def test_children_are_replaced_after_so_many_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIFETIME", 2)
    monkeypatch.setattr(module, "BATCH", 2)
    with Verifier(workers=1) as verifier:
        verifier.verdicts([("e+1", "1+e"), ("e+2", "2+e")])
        first = verifier._children[0].process.pid
        assert verifier.verdicts([("e+3", "3+e"), ("e+4", "5+e"), ("e+6", "6+e")]) == ["symbolic", "wrong", "symbolic"]
        assert verifier._children[0].process.pid != first
    assert not alive(first)


def test_closing_ends_the_children() -> None:
    with Verifier() as verifier:
        verifier.verdicts([("x+1", "1+x")])
        pids = [child.process.pid for child in verifier._children]
    assert pids and not any(alive(pid) for pid in pids)


def test_children_do_not_outlive_a_killed_parent() -> None:
    script = """
        import os, signal
        from qup.answers.verifier import Verifier
        verifier = Verifier(2.0, workers=1)
        verifier.verdicts([("x+1", "1+x")])
        print(verifier._children[0].process.pid, flush=True)
        if os.fork() == 0:  # holds copies of the child's pipes, so that it meets no end of its input
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert run.stdout is not None
        child = int(run.stdout.readline())
        run.wait(30)
        assert wait_until_gone(child, 10)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
