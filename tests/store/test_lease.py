"""Claims: one holder, seen dead at once on this machine, taken over after a freeze, never two."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qup.errors import LeaseLost
from qup.store.lease import Lease, holder_is_dead, read_lease


def test_a_second_holder_is_refused_while_the_first_lives(tmp_path):
    first, second = Lease(tmp_path / "a.lease", 60), Lease(tmp_path / "a.lease", 60)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()


def _hold(path, seconds=60):
    code = (
        "import sys,time; from pathlib import Path; from qup.store.lease import Lease\n"
        f"lease = Lease(Path({str(path)!r}), 1.0); assert lease.acquire(); lease.watch(); print('held', flush=True); time.sleep({seconds})"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_dead_holder_is_replaced_at_once(tmp_path):
    path = tmp_path / "a.lease"
    holder = _hold(path)
    mine = Lease(path, 3600)
    assert not mine.acquire()
    holder.kill()
    holder.wait()
    assert holder_is_dead(read_lease(path))
    assert mine.acquire()


def test_frozen_holder_loses_and_knows_it(tmp_path):
    path = tmp_path / "a.lease"
    holder = _hold(path)
    os.kill(holder.pid, signal.SIGSTOP)
    mine = Lease(path, 1.0)
    deadline = time.monotonic() + 10
    while not mine.acquire():
        assert time.monotonic() < deadline, "never took over"
        time.sleep(0.05)
    mine.watch()
    os.kill(holder.pid, signal.SIGCONT)
    time.sleep(1.5)
    assert mine.held()
    mine.release()
    holder.kill()
    holder.wait()


def test_beating_holder_elsewhere_is_left_alone(tmp_path):
    path = tmp_path / "a.lease"
    lease = Lease(path, 0.4)
    assert lease.acquire()

    def as_elsewhere(beat):
        path.write_text(json.dumps(dict(read_lease(path), machine="another/machine", beat=beat)))

    other = Lease(path, 0.4)
    for beat in range(8):
        as_elsewhere(beat)
        assert not other.acquire()
        time.sleep(0.1)
    deadline = time.monotonic() + 5
    while not other.acquire():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_loser_is_told(tmp_path):
    lease = Lease(tmp_path / "a.lease", 60)
    assert lease.acquire()
    (tmp_path / "a.lease").unlink()
    other = Lease(tmp_path / "a.lease", 60)
    assert other.acquire()
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()
    assert other.held()


def test_progress_is_shown_in_the_lease(tmp_path):
    lease = Lease(tmp_path / "a.lease", 60)
    assert lease.acquire()
    lease.watch()
    lease.progress(3, 10, "steps")
    deadline = time.monotonic() + 5
    while (read_lease(tmp_path / "a.lease") or {}).get("progress") != {"done": 3, "total": 10, "unit": "steps"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lease.release()
    assert not (tmp_path / "a.lease").exists()


@pytest.mark.parametrize("times", [3, 10_000])
def test_a_stale_handle_of_nfs_is_read_again(tmp_path, monkeypatch, times):
    path = tmp_path / "a.lease"
    assert Lease(path, 60).acquire()
    real, left = Path.read_text, [times]

    def stale(self, *args, **kwargs):
        if self == path and left[0]:
            left[0] -= 1
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", stale)
    if times < 100:
        assert read_lease(path) is not None
    else:
        with pytest.raises(OSError):
            read_lease(path)
