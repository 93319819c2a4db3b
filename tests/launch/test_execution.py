"""What a stage's execution tells while it goes on."""

import logging

from qup.launch import execution


class Lease:
    def __init__(self):
        self.shown = []

    def progress(self, *what):
        self.shown.append(what)


def test_progress_goes_to_the_lease_at_once_and_to_the_log_now_and_then(caplog, monkeypatch):
    clock = iter([0.0, 1.0, 61.0, 62.0])
    monkeypatch.setattr(execution.time, "monotonic", lambda: next(clock))
    lease, log = Lease(), logging.getLogger("qup.test")
    with caplog.at_level(logging.INFO, "qup.test"):
        progress = execution.Progress(lease, log)
        for done in (1, 2000, 2001):
            progress(done, 4000, "steps")
    assert lease.shown == [(1, 4000, "steps"), (2000, 4000, "steps"), (2001, 4000, "steps")]
    assert [record.getMessage() for record in caplog.records] == ["2,000 of 4,000 steps"]


def test_a_worker_without_a_lease_tells_its_log_alone(caplog, monkeypatch):
    monkeypatch.setattr(execution, "TELL_S", 0.0)
    with caplog.at_level(logging.INFO, "qup.test"):
        execution.Progress(None, logging.getLogger("qup.test"))(3, 10, "problems")
    assert [record.getMessage() for record in caplog.records] == ["3 of 10 problems"]


def test_what_passes_before_the_first_unit_is_told_apart(monkeypatch):
    clock = iter([100.0, 142.0, 144.0, 148.0])
    monkeypatch.setattr(execution.time, "monotonic", lambda: next(clock))
    progress = execution.Progress(None, logging.getLogger("qup.test"))
    assert progress.startup_s is None
    for done in (1, 2, 4):
        progress(done, 8, "problems")
    assert progress.startup_s == 40.0, "two seconds a problem, so the first began after 40"
