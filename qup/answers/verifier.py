"""Comparing answers with gold answers: in process where that takes no time, else by values in child processes.

The children are plain subprocesses with pipes of their own, so a Verifier works in any thread and in forked processes.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import qup
from qup.answers.comparison import decide, form
from qup.errors import QupError

VERDICTS = ("equal", "symbolic", "wrong", "undecided", "no_answer", "timeout")
CORRECT = ("equal", "symbolic")

BATCH = 32
"""Pairs sent to a child at once."""
BATCH_BYTES = 50_000
"""A request stays below a pipe's 64 KiB, so that sending never blocks."""
LIFETIME = 10_000
"""Pairs after which a child is replaced: computer algebra keeps what it has seen."""
REMEMBERED = 200_000
_REPLIES = {b"1": "symbolic", b"0": "wrong", b"?": "undecided"}
START_S = 120.0
MOST_WORKERS = 4

Pair = tuple[str, str]


def _command(timeout_s: float) -> list[str]:
    return [sys.executable, "-P", "-m", "qup.answers.child", str(timeout_s)]


class _Child:
    """One child process and the batch it is working on."""

    def __init__(self, timeout_s: float) -> None:
        root = str(Path(qup.__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            _command(timeout_s),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,
            env=environment,
        )
        self.timeout_s = timeout_s
        self.ready = False
        self.served = 0
        self.batch: deque[Pair] = deque()
        self.deadline = time.monotonic() + START_S
        self._unread = b""

    @property
    def output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def send(self, pairs: Sequence[Pair]) -> None:
        """Hands over a batch; a child that is gone shows at the next read."""
        assert self.process.stdin is not None
        self.batch.extend(pairs)
        self._wait_longer()
        try:
            self.process.stdin.write(json.dumps(pairs).encode() + b"\n")
        except BrokenPipeError:
            pass

    def read(self) -> list[bytes] | None:
        """Lines that came in; None once the child is gone."""
        piece = os.read(self.output, 1 << 16)
        if not piece:
            return None
        *lines, self._unread = (self._unread + piece).split(b"\n")
        self._wait_longer()
        return lines

    def _wait_longer(self) -> None:
        """The child's own limit counts CPU seconds; this one only catches a process that gets none."""
        self.deadline = time.monotonic() + 10 * self.timeout_s + 10

    def end(self) -> int:
        """Kills the child; returns how it ended."""
        self.process.kill()
        code = self.process.wait()
        self.let_go()
        return code

    def let_go(self) -> None:
        """Closes our ends of the pipes."""
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                stream.close()

    def why(self) -> str:
        """The last line it wrote to stderr."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"


class Verifier:
    """Compares answers with gold answers; a context manager that owns its child processes.

    `timeout_s`: CPU seconds a comparison may take before it counts as "timeout", which is wrong.
    `workers`: most children at once; none is started before one is needed.
    `counts`: pairs that went to a child, time-outs among them, and pairs given up because their child crashed twice.
    """

    def __init__(self, timeout_s: float = 5.0, workers: int | None = None) -> None:
        self.timeout_s = timeout_s
        self.workers = workers or min(MOST_WORKERS, _cores())
        self.counts = {"symbolic": 0, "timeouts": 0, "crashes": 0}
        self._children: list[_Child] = []
        self._known: dict[Pair, str] = {}
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the children; the Verifier can still be used, and starts new ones."""
        self._after_fork()
        with self._lock:
            for child in self._children:
                child.end()
            self._children.clear()

    def verdicts(self, pairs: Sequence[Pair]) -> list[str]:
        """One of VERDICTS for each (answer, gold), "" being no answer. Never raises for what the answers hold.

        Raises QupError where the child processes cannot be started.
        """
        self._after_fork()
        decided: dict[Pair, str | None] = dict.fromkeys(pairs)
        for pair in decided:
            decided[pair] = decide(*pair)
        tidied = {pair: (form(pair[0]).tidied, form(pair[1]).tidied) for pair, verdict in decided.items() if verdict is None}
        with self._lock:
            found = self._look_up(tidied.values())
        return [decided[pair] or found[tidied[pair]] for pair in pairs]

    def _after_fork(self) -> None:
        """In a forked process the parent's children are not ours: their pipes are closed, they live on."""
        if os.getpid() != self._pid:
            for child in self._children:
                child.let_go()
            self._children, self._lock, self._pid = [], threading.Lock(), os.getpid()

    def _look_up(self, pairs: Iterable[Pair]) -> dict[Pair, str]:
        wanted = dict.fromkeys(pairs)
        found = {pair: self._known[pair] for pair in wanted if pair in self._known}
        new = [pair for pair in wanted if pair not in found]
        if new:
            answered = self._ask(new)
            if len(self._known) + len(answered) > REMEMBERED:
                self._known.clear()
            self._known |= answered
            found |= answered
        return found

    def _ask(self, pairs: list[Pair]) -> dict[Pair, str]:
        """Verdicts of the children. A child that dies is replaced; the pair it died over is tried once more."""
        waiting, verdicts, suspects, stillborn = deque(pairs), dict[Pair, str](), set[Pair](), 0
        self.counts["symbolic"] += len(pairs)
        try:
            while len(verdicts) < len(pairs):
                self._hand_out(waiting)
                for child, ended in self._listen(verdicts):
                    code = child.end() if ended != "late" else (child.end(), -signal.SIGPROF)[1]
                    self._children.remove(child)
                    if not child.ready:
                        stillborn += 1
                        if stillborn > 2:
                            raise QupError(f"the child process that compares answers does not start: {ended}")
                        continue
                    if child.batch:
                        pair = child.batch.popleft()
                        if code == -signal.SIGPROF:
                            self.counts["timeouts"] += 1
                            verdicts[pair] = "timeout"
                        elif pair in suspects:
                            self.counts["crashes"] += 1
                            verdicts[pair] = "wrong"
                        else:
                            suspects.add(pair)
                            waiting.appendleft(pair)
                        waiting.extend(child.batch)
        except BaseException:
            for child in self._children:
                child.end()
            self._children.clear()
            raise
        return verdicts

    def _hand_out(self, waiting: deque[Pair]) -> None:
        """Gives each idle child a batch; starts children while there is more to do than those at hand will take."""
        for child in [child for child in self._children if child.ready and not child.batch]:
            if child.served >= LIFETIME:
                child.end()
                self._children.remove(child)
            elif batch := _next_batch(waiting):
                child.served += len(batch)
                child.send(batch)
        starting = sum(not child.ready for child in self._children)
        while waiting and len(self._children) < self.workers and starting * BATCH < len(waiting):
            self._children.append(_Child(self.timeout_s))
            starting += 1

    def _listen(self, verdicts: dict[Pair, str]) -> list[tuple[_Child, str]]:
        """Takes in what the children say; returns those that are gone, or late, and why."""
        gone: list[tuple[_Child, str]] = []
        busy = [child for child in self._children if child.batch or not child.ready]
        with selectors.DefaultSelector() as selector:
            for child in busy:
                selector.register(child.output, selectors.EVENT_READ, child)
            patience = min(child.deadline for child in busy) - time.monotonic() if busy else 0
            for key, _ in selector.select(max(0.0, patience)):
                child = key.data
                lines = child.read()
                if lines is None:
                    gone.append((child, child.why()))
                    continue
                for line in lines:
                    if line == b"ready":
                        child.ready = True
                    else:
                        verdicts[child.batch.popleft()] = _REPLIES[line]
        now = time.monotonic()
        gone += [(child, "late") for child in busy if child.deadline < now and all(child is not other for other, _ in gone)]
        return gone


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _next_batch(waiting: deque[Pair]) -> list[Pair]:
    batch: list[Pair] = []
    size = 0
    while waiting and len(batch) < BATCH:
        size += len(json.dumps(waiting[0]))
        if batch and size > BATCH_BYTES:
            break
        batch.append(waiting.popleft())
    return batch
