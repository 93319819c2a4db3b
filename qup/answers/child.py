"""The process in which values of expressions are compared: `python -m qup.answers.child TIMEOUT_S`.

A request is one line of JSON, a list of [answer, gold], both tidied; the reply is a line for each pair, in order: `1` the same,
`0` different, `?` not certain. The kernel ends the process by SIGPROF when a pair has used TIMEOUT_S seconds of CPU, so a comparison that never returns
to Python is cut off too. The process leaves when its input closes or its parent is gone, not by the signals meant for its parent.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
import sys
from pathlib import Path

from qup.answers.comparison import judge

MEMORY = 1 << 30
"""Bytes of address space beyond what the libraries take."""
POLL_S = 2.0
_REPLIES = {"symbolic": b"1\n", "wrong": b"0\n", "undecided": b"?\n"}


def main(timeout_s: float) -> None:
    replies, requests = _private_pipes()
    logging.disable(logging.CRITICAL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    parent = os.getppid()
    judge("\\sqrt{2}", "\\sqrt{3}")
    _limit_memory()
    os.dup2(1, 2)
    os.write(replies, b"ready\n")
    pending = b""
    while True:
        while b"\n" not in pending:
            if not select.select([requests], [], [], POLL_S)[0]:
                if os.getppid() != parent:
                    return
                continue
            piece = os.read(requests, 1 << 16)
            if not piece:
                return
            pending += piece
        line, _, pending = pending.partition(b"\n")
        for answer, gold in json.loads(line):
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            try:
                verdict = judge(answer, gold)
            except Exception:
                verdict = "undecided"
            signal.setitimer(signal.ITIMER_PROF, 0)
            os.write(replies, _REPLIES[verdict])


def _private_pipes() -> tuple[int, int]:
    """The pipes to the parent, out of reach of whatever a library prints or reads."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    return replies, requests


def _limit_memory() -> None:
    try:
        size = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = size + MEMORY if hard == resource.RLIM_INFINITY else min(size + MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main(float(sys.argv[1]))
