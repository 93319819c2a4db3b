"""Who answers: one interface, four ways behind it."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from qup.config.schema import LabOracle, Oracle
from qup.errors import Fault, InputError
from qup.oracle.asks import Request, digest, endpoint
from qup.oracle.completions import Reply, read_completion, translate
from qup.oracle.faults import Hopeless


class Backend(Protocol):
    """Sends one request at a time to whoever answers."""

    where: str
    """For messages to people."""
    identity: dict[str, Any]
    """Part of every request's key: answers of one identity may stand in for each other."""
    stored: bool
    """Whether answers go into the answer store."""

    def prepare(self) -> None:
        """Called once, before the first send: imports, keys, servers. Raises InputError."""

    async def send(self, request: Request) -> Reply:
        """Raises Hopeless, Limited, Broken or Rejected."""
        ...

    async def close(self) -> None: ...


class ChatBackend:
    """Any endpoint that speaks OpenAI's chat completions, through the openai library without its own retries."""

    stored = True

    def __init__(self, oracle: Oracle, base_url: str | None, identity: dict[str, Any]) -> None:
        self.where = f"the endpoint {endpoint(base_url)}"
        self.identity = identity
        self._oracle = oracle
        self._key = ""
        self._base_url = base_url
        self._client: Any = None

    def prepare(self) -> None:
        import openai

        self._key = api_key(self._oracle, self._base_url)
        quieten()
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            max_retries=0,
            timeout=openai.Timeout(self._oracle.timeout_s, connect=min(self._oracle.timeout_s, 10.0)),
        )

    async def send(self, request: Request) -> Reply:
        import openai

        try:
            async with asyncio.timeout(self._oracle.timeout_s):
                text = await self._client.post("/chat/completions", cast_to=str, body=request.body)
        except (openai.OpenAIError, TimeoutError, UnicodeDecodeError) as error:
            raise translate(error, self._oracle, self.where, self._key) from None
        return read_completion(text, request.body["messages"])

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


class LabBackend:
    """The embedded world's programmed Oracle, called in process."""

    stored = True

    def __init__(self, oracle: Oracle) -> None:
        from qup.lab import oracle as lab

        self.where = "the lab's Oracle"
        settings = _told(oracle.lab)
        self.identity = {"backend": "lab", "version": getattr(lab, "VERSION", 1), "lab": settings}
        self._answer = lab.LabOracle.answer
        self._oracle = oracle

    def prepare(self) -> None:
        pass

    async def send(self, request: Request) -> Reply:
        if self._oracle.lab.latency_s:
            await asyncio.sleep(self._oracle.lab.latency_s)
        given = self._answer(request.body["messages"], seed=self._oracle.seed or 0, attempt=request.ask.attempt, cfg=self._oracle.lab)
        return read_completion(given, request.body["messages"])

    async def close(self) -> None:
        pass


def _told(lab: LabOracle) -> dict[str, Any]:
    """What decides its answers; manners that are the default are left out, so that answers from before there were any still count."""
    plain, usual = dataclasses.asdict(lab), dataclasses.asdict(LabOracle())
    always = ("error_rate", "refuse_rate")
    return {name: value for name, value in plain.items() if name in always or (value != usual[name] and name != "latency_s")}


class RecordedBackend:
    """Answers from a file: JSON lines, or a folder of them such as an answer store's segments.

    A line has `answer`, and one of `key`, `messages`, `messages_sha256`; it may have `attempt` (else it answers every
    attempt that has no line of its own), `finish`, `input_tokens`, `output_tokens`. Only places are held in memory.
    """

    stored = False

    def __init__(self, oracle: Oracle) -> None:
        self._path = Path(oracle.path)
        self.where = f"the recording oracle.path={oracle.path}"
        self.identity = {"backend": "recorded"}
        self._places: dict[bytes, tuple[int, int, int]] = {}
        self._files = sorted(self._path.glob("*.jsonl")) if self._path.is_dir() else [self._path]
        if not oracle.path or not self._path.exists() or not self._files:
            raise InputError(
                f"oracle.path={oracle.path!r}: with oracle.backend=recorded this is a jsonl file of recorded answers, or a folder of such files"
            )
        for number, file in enumerate(self._files):
            for row, offset, line in _rows(file):
                for name in _names(file, row, line):
                    self._places[name] = (number, offset, len(line))
        if not self._places:
            raise InputError(f"oracle.path={oracle.path}: there is no recorded answer in it")

    def prepare(self) -> None:
        pass

    async def send(self, request: Request) -> Reply:
        ask, spoken = request.ask, digest(request.body["messages"])
        for name in (request.key, f"{spoken} {ask.attempt}", spoken):
            place = self._places.get(_hash(name))
            if place is not None:
                row = self._read(*place)
                return Reply(row["answer"], row.get("finish", "stop"), row.get("input_tokens", 0), row.get("output_tokens", 0))
        raise Hopeless(
            f"{self.where} holds no answer for task {ask.task!r}, id {ask.id!r}, attempt {ask.attempt}, key {request.key}. Record it: run once with a live Oracle "
            f'and point oracle.path at that store\'s oracle/answers folder, or add a line {{"key": "{request.key}", "answer": "..."}}'
        )

    async def close(self) -> None:
        pass

    def _read(self, number: int, offset: int, length: int) -> dict[str, Any]:
        with self._files[number].open("rb") as file:
            file.seek(offset)
            return json.loads(file.read(length))


def check_recording(oracle: Oracle, key: str) -> list[Fault]:
    """What is wrong with the recorded answers; `key` is where `oracle` stands."""
    try:
        RecordedBackend(oracle)
    except InputError as error:
        return [Fault(f"{key}.path", oracle.path, str(error))]
    return []


def make_backend(oracle: Oracle, work: Path, gpus: str, stopping: Callable[[], bool]) -> Backend:
    """The backend that a configuration names; nothing is started or sent yet. Raises InputError.

    A server of our own writes its log to `work`, runs on `gpus` (as in Resources), and gives up starting where `stopping` says so.
    """
    if oracle.backend == "lab":
        return LabBackend(oracle)
    if oracle.backend == "recorded":
        return RecordedBackend(oracle)
    if oracle.backend in ("openai", "vllm") and not oracle.model:
        raise InputError(f"oracle.model={oracle.model!r}: the endpoint's name of the model, or the path that vLLM serves, has to be given")
    if oracle.backend == "openai":
        return ChatBackend(oracle, oracle.base_url, {"backend": "openai", "endpoint": endpoint(oracle.base_url)})
    if oracle.backend == "vllm":
        from qup.oracle.vllm import VllmBackend

        return VllmBackend(oracle, work, gpus, stopping)
    raise InputError(f"oracle.backend={oracle.backend!r}: this stage asks an Oracle; choose lab, recorded, openai or vllm")


def api_key(oracle: Oracle, base_url: str | None) -> str:
    """The key from the environment; "" where an endpoint of one's own may do without. Raises InputError."""
    key = os.environ.get(oracle.api_key_env, "").strip()
    if not key and base_url is None and oracle.backend == "openai":
        raise InputError(
            f"oracle.api_key_env={oracle.api_key_env}: this environment variable holds no key for {endpoint(None)}; set it, or oracle.base_url for an endpoint of your own"
        )
    return key


def quieten() -> None:
    """The HTTP libraries log a line for every request; where nobody asked for that, only their warnings are kept."""
    for name in ("httpx", "httpx2", "openai"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _names(file: Path, number: int, line: bytes) -> Iterator[bytes]:
    """What a recorded answer can be found by."""
    try:
        row = json.loads(line)
        if not isinstance(row["answer"], str):
            raise TypeError
    except (ValueError, LookupError, TypeError):
        raise InputError(f'{file}, row {number}: a recorded answer is a JSON object with a text "answer"') from None
    spoken = row.get("messages_sha256") or (digest(row["messages"]) if "messages" in row else None)
    if spoken is None and "key" not in row:
        raise InputError(f'{file}, row {number}: a recorded answer has "messages", "messages_sha256" or "key" beside "answer"')
    if "key" in row:
        yield _hash(row["key"])
    if spoken is not None:
        yield _hash(f"{spoken} {row['attempt']}" if "attempt" in row else spoken)


def _rows(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """(row from 1, offset, line); an unfinished last line, as a kill leaves it in a segment, is left out where it is no JSON."""
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip() and (line.endswith(b"\n") or _is_json(line)):
                yield number, offset, line
            offset += len(line)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
