"""Responses from a vLLM server that we start on the GPUs this stage was given, watch, and stop."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from qup.config.schema import Sampling
from qup.errors import InputError, Interrupted, QupError
from qup.generation.endpoint import Endpoint, fan_out, fitted, gather, seed_of
from qup.generation.records import Clamped, Request, Sample
from qup.generation.student import Student
from qup.models import placed
from qup.pipeline.context import Context

START_S = 1800.0
STOP_S = 20.0
SERVED = "student"


def _die_with_parent() -> None:
    """In the child: a SIGTERM where we vanish without stopping it (Linux)."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    except (OSError, AttributeError):
        pass


def arguments(student: Student, sampling: Sampling, gpus: int) -> list[str]:
    """Command line of the server, without program and address."""
    place = placed(student.model, student.directory)
    found = [
        place.name,
        "--served-model-name",
        SERVED,
        "--dtype",
        student.model.dtype,
        "--max-model-len",
        str(student.context),
        "--seed",
        str((sampling.seed or 0) & 0x7FFFFFFF),
        "--generation-config",
        "vllm",  # else the model's own sampling defaults creep in
    ]
    if place.revision:
        found += ["--revision", place.revision]
    if place.trust_remote_code:
        found.append("--trust-remote-code")
    if gpus > 1:
        found += ["--data-parallel-size", str(gpus)]
    return found


def count_gpus(resources: str) -> int:
    """GPUs this process was given: those visible to it, else what was asked for (`2`, `a100:2`)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return len(visible.split(","))
    number = resources.rpartition(":")[2]
    return max(int(number), 1) if number.isdigit() else 1


class Server:
    """One `vllm serve` process. It is started anew once where it dies; it ends with us."""

    def __init__(self, arguments: list[str], log: Path, stopping: Callable[[], bool], *, start_s: float = START_S) -> None:
        program = shutil.which("vllm")
        if program is None:
            raise InputError(
                'sampling.backend=vllm: there is no program vllm on PATH; pip install "qup[vllm]", or choose transformers or openai'
            )
        self._command = [program, "serve", *arguments]
        self._log, self._stopping, self._start_s = log, stopping, start_s
        self._lock = threading.Lock()
        # the kernel ends the child with the thread that forked it, so that thread has to last
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="qup-vllm")
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server and waits until it is healthy. QupError with the end of its log where it does not come up."""
        self.starts += 1
        stream: IO[bytes] = self._log.open("ab")
        with stream:
            self._process = self._starter.submit(
                subprocess.Popen,
                [*self._command, "--host", "127.0.0.1", "--port", str(self.port)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            ).result()
        deadline = time.monotonic() + self._start_s
        while not self._healthy():
            if self._stopping():
                self.stop()
                raise Interrupted("asked to stop while the vLLM server was starting")
            if not self.alive or time.monotonic() > deadline:
                why = f"ended with status {self._process.poll()}" if not self.alive else f"was not ready within {self._start_s:g} s"
                self.stop()
                raise QupError(f"the vLLM server {why}; the end of {self._log}:\n{self._tail()}")
            time.sleep(0.1)

    def revive(self) -> bool:
        """Starts a dead server anew, once; raises QupError at its second death. Whether it was dead."""
        with self._lock:
            if self.alive:
                return False
            if self.starts > 1:
                raise QupError(f"the vLLM server died twice; the end of {self._log}:\n{self._tail()}")
            self.stop()
            self.start()
            return True

    def stop(self) -> None:
        """Ends the server with all its workers."""
        if self._process is None:
            return
        for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()

    def close(self) -> None:
        """Ends the server for good."""
        self.stop()
        self._starter.shutdown()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _tail(self) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        except OSError:
            return ""


class VllmBackend:
    """Prompts go as token ids, so template and stop ids are ours; log-probabilities are of the unmodified logits."""

    def __init__(self, student: Student, sampling: Sampling, ctx: Context) -> None:
        self._student, self._sampling, self._stopping = student, sampling, ctx.stopping
        ctx.work.mkdir(parents=True, exist_ok=True)
        log = ctx.work / f"vllm.{os.getpid()}.log"
        ctx.log.info("starting vLLM; its log is %s", log)
        self.server = Server(arguments(student, sampling, count_gpus(ctx.resources.gpus)), log, ctx.stopping)
        try:
            self.server.start()
        except BaseException:
            self.server.close()
            raise
        self._endpoint = Endpoint(f"{self.server.url}/v1", None, name=SERVED, revive=self.server.revive)
        self.facts: dict[str, Any] = {"backend": "vllm"}

    def generate(self, clamped: Clamped) -> Iterator[tuple[int, list[Sample]]]:
        return fan_out(clamped, self._ask, self._stopping, lambda: self._endpoint)

    def _ask(self, request: Request, room: int) -> list[Sample]:
        return gather(request, lambda first, wanted: self._send(request, room, first, wanted))

    def _send(self, request: Request, room: int, first: int, wanted: int) -> list[Sample]:
        import openai

        sampling = self._sampling
        body = {
            "model": SERVED,
            "prompt": list(request.prompt_ids),
            "n": wanted,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": room,
            "logprobs": 0,
            "seed": seed_of(sampling, request, first),
            "extra_body": {
                "top_k": sampling.top_k or -1,
                "min_p": sampling.min_p,
                "stop_token_ids": list(self._student.stop_ids),
                "skip_special_tokens": False,
                "return_token_ids": True,
                "return_tokens_as_token_ids": True,
            },
        }
        try:
            answer = self._endpoint.call(self._endpoint.client.completions.create, body)
        except openai.BadRequestError as error:
            raise InputError(f"vLLM refuses problem {request.id}: {str(error.message)[:300]}") from None
        return [self._sample(choice) for choice in answer.choices or []]

    def _sample(self, choice: Any) -> Sample:
        stops = self._student.stop_ids
        finish = "stop" if choice.finish_reason == "stop" else "length"
        told = choice.logprobs
        ids = getattr(choice, "token_ids", None)
        if ids is None and told is not None and all(str(token).startswith("token_id:") for token in told.tokens or []):
            ids = [int(token.partition(":")[2]) for token in told.tokens or []]
        if ids is None:
            raise QupError("the vLLM server gives no token ids; version 0.10.2 or later does")
        ids = list(ids)
        if finish == "stop" and (not ids or ids[-1] not in stops):
            reason = getattr(choice, "stop_reason", None)
            ids.append(reason if isinstance(reason, int) else self._student.train_stop_id)
        found = list(told.token_logprobs or []) if told is not None else []
        return Sample(tuple(ids), fitted(found, len(ids)), finish)

    def close(self) -> None:
        self._endpoint.close()
        self.server.close()

    def __enter__(self) -> VllmBackend:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
