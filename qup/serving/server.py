"""A vLLM server of our own: started, recognised, watched, revived once, stopped."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from qup.config.schema import Vllm
from qup.errors import Interrupted, QupError
from qup.files import tail
from qup.serving import command
from qup.serving.http import fetch, fetch_json
from qup.serving.log import MOST, cause
from qup.serving.models import served, served_limit
from qup.serving.pulse import Counts, Pulse, read_counts

STOP_S = 6.0
"""Patience between SIGTERM and SIGKILL; below the launcher's own."""
DYING_S = 0.2
PORTS = 5
"""Ports tried where others have taken them."""
LOOKS = 8
"""Times that a server is asked for its name at the start: with a port shared by two, each answers some."""
PROBE_S, PROBE_TIMEOUT_S = 10.0, 20.0
_TAKEN = re.compile(r"address already in use|errno 98\b|EADDRINUSE", re.IGNORECASE)


class Foreign(Exception):
    """Somebody else answers on our port."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _die_with_parent() -> None:
    """In the child: a SIGTERM where we vanish without stopping it (Linux)."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    except (OSError, AttributeError):
        pass


class Server:
    """One `vllm serve` process, a context manager. It is started anew once where it dies or hangs; it ends with us.

    `role` (student, oracle, reward) is the first half of the name under which it serves; the second half and its API key
    are random, so that no other server is taken for it and nobody else uses it. Its log lies in `work`.
    """

    def __init__(
        self,
        vllm: Vllm,
        role: str,
        model: str,
        flags: Mapping[str, Any],
        *,
        work: Path,
        stopping: Callable[[], bool],
        log: logging.Logger,
    ) -> None:
        self.model = f"{role}-{secrets.token_hex(6)}"
        self.key = secrets.token_hex(16)
        self.flags = command.merged(flags, vllm.args)
        self.version = ""
        self.log_file = work / f"vllm.{role}.{os.getpid()}.log"
        self.starts = 0
        self.port = 0
        self._vllm, self._role, self._place = vllm, role, model
        self._line = command.line(vllm, model, {**self.flags, "served-model-name": self.model})
        self._stopping, self._log = stopping, log
        self._lock = threading.Lock()
        # the kernel ends the child with the thread that forked it, so that thread has to last
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="qup-vllm")
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0
        self._verdict = ""
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        work.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def facts(self) -> dict[str, Any]:
        """Which vLLM served, for the manifest."""
        return {"version": self.version, "flags": command.rendered(self.flags), "starts": self.starts}

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Starts the server and waits until it answers by its name. QupError with the cause, by its log, where it does not."""
        self.starts += 1
        began = time.monotonic()
        for _ in range(PORTS):
            self.port = free_port()
            self._launch()
            try:
                if self._ready(began + self._vllm.start_s):
                    break
                self._log.warning("port %d was taken in the meantime; the vLLM server tries another", self.port)
            except Foreign as error:
                self._log.warning("%s; the vLLM server tries another port", error)
            except BaseException:
                self.stop()
                raise
            self.stop()
        else:
            raise QupError(f"the vLLM server found no free port in {PORTS} attempts; its log is {self.log_file}")
        self.version = str(self._get("/version").get("version", ""))
        self._log.info("vLLM %s is ready after %.0f s", self.version, time.monotonic() - began)
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="qup-vllm-watch", daemon=True)
            self._watcher.start()

    def revive(self) -> bool:
        """Starts a server that died, or refuses connections, anew; raises QupError at its second death. Whether it had to."""
        with self._lock:
            if self._closed.is_set() or (self._lives() and not self._refuses()):
                return False
            why = self._death()
            self.stop()
            if self.starts > 1:
                raise QupError(f"the vLLM server died twice: {why}; its log is {self.log_file}")
            self._log.warning("the vLLM server died: %s; it is started anew", why)
            self.start()
            return True

    def stop(self) -> None:
        """Ends the server with all its workers."""
        if self._process is None:
            return
        for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            self._signal(number)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()

    def close(self) -> None:
        """Ends the server for good."""
        self._closed.set()
        self.stop()
        self._starter.shutdown()
        if self._watcher is not None:
            self._watcher.join()

    def limit(self) -> int | None:
        """Tokens that prompt and response may have together, as the server says; None where it does not."""
        return served_limit(served(self.url, self.key), self.model)

    def _launch(self) -> None:
        self._verdict = ""
        words = [*self._line, "--host", "127.0.0.1", "--port", str(self.port)]
        self._log.info("vLLM starts; its log is %s: %s", self.log_file, shlex.join(words))
        with self.log_file.open("ab") as stream:
            self._began = stream.tell()
            self._process = self._starter.submit(
                subprocess.Popen,
                words,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            ).result()

    def _environment(self) -> dict[str, str]:
        """Ours, without what would lead another environment's Python to our packages."""
        ours = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        return {**ours, "VLLM_API_KEY": self.key}

    def _ready(self, deadline: float) -> bool:
        """Waits until the server answers; False where its port was taken. Raises Foreign, Interrupted and QupError."""
        while True:
            if self._stopping() or self._closed.is_set():
                raise Interrupted("asked to stop while the vLLM server was starting")
            if not self.alive:
                assert self._process is not None
                if _TAKEN.search(tail(self.log_file, MOST, self._began)):
                    return False
                raise QupError(f"the vLLM server ended with status {self._process.poll()}: {self._death()}; its log is {self.log_file}")
            if time.monotonic() > deadline:
                raise QupError(
                    f"the vLLM server was not ready within vllm.start_s={self._vllm.start_s:g}: {self._death()}; its log is {self.log_file}"
                )
            try:
                for _ in range(LOOKS):
                    self._recognise(2.0)
                fetch(f"{self.url}/health", timeout_s=2.0)
                return True
            except (OSError, ValueError):
                time.sleep(0.1)

    def _recognise(self, timeout_s: float) -> None:
        """Raises Foreign where the server that answers is not ours; OSError and ValueError where none does."""
        try:
            names = [model["id"] for model in served(self.url, self.key, timeout_s=timeout_s)]
        except HTTPError as error:
            if error.code not in (401, 403, 404):
                raise
            names = [f"status {error.code}"]
        if self.model not in names:
            raise Foreign(f"another server answers on port {self.port} ({', '.join(names)[:100]})")

    def _lives(self) -> bool:
        """As `alive`, after a moment in which a process that cut our connection may still be ending."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(DYING_S)
        return self.alive

    def _refuses(self) -> bool:
        """Whether nobody listens on the port any more; then the server is ended."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=PROBE_TIMEOUT_S):
                return False
        except ConnectionRefusedError:
            self._verdict = f"it no longer listened on port {self.port}"
            return True
        except OSError:
            return False

    def _probe(self) -> Counts:
        """What the engines do, of a server in health. Raises Foreign; OSError and ValueError where it is not in health."""
        fetch(f"{self.url}/health", timeout_s=PROBE_TIMEOUT_S)
        self._recognise(PROBE_TIMEOUT_S)
        try:
            return read_counts(fetch(f"{self.url}/metrics", key=self.key, timeout_s=PROBE_TIMEOUT_S).decode("utf-8", "replace"))
        except HTTPError:
            return {}

    def _watch(self) -> None:
        """Kills a server that hangs, so that the requests which wait for it are cut and revive it."""
        pulse = Pulse(self._vllm.stall_s)
        while not self._closed.wait(PROBE_S):
            process = self._process
            if not self.alive or self._lock.locked():
                pulse = Pulse(self._vllm.stall_s)
                continue
            try:
                why = pulse.felt(self._probe(), time.monotonic())
            except Foreign as error:
                why = str(error)
            except (OSError, ValueError) as error:
                why = pulse.missed(error)
            if why and self._process is process and not self._closed.is_set():
                self._verdict = why
                self._signal(signal.SIGKILL)

    def _get(self, path: str) -> Any:
        try:
            return fetch_json(f"{self.url}{path}", key=self.key, timeout_s=PROBE_TIMEOUT_S)
        except (OSError, ValueError):
            return {}

    def _death(self) -> str:
        """Why the server ended: what we saw ourselves, else what its log says."""
        return self._verdict or cause(self.log_file, self._began)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                pass
