"""Responses from an OpenAI-compatible server: any chat endpoint, and what the vLLM backend shares with it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from qup.config.schema import Sampling
from qup.draws import bits
from qup.errors import InputError, Interrupted, QupError
from qup.generation.records import Clamped, Request, Sample
from qup.generation.student import Student
from qup.models import encode_response
from qup.pipeline.context import Context
from qup.serving.http import http_client, is_loopback, retry_after, secret_free
from qup.serving.models import served

CONCURRENCY = 32
"""Requests in flight at an endpoint of others."""
MOST_CONCURRENT = 1024
ATTEMPTS = 8
TIMEOUT_S = 900.0
"""Longest wait for one answer; a server that lets it pass twice counts as broken."""
OWN_TIMEOUT_S = 6 * 3600.0
"""The same for a server of our own: a health probe ends it long before, where it hangs."""
EMPTY_ROUNDS = 4
"""Answers in a row without a usable choice before a server counts as broken."""
UNDONE = ("abort", "error")
"""Reasons of a server for a response that it did not finish drawing; such a one is asked for anew."""
UNKNOWN = float("nan")


class Own(Protocol):
    """A server that we started: its address may change when it is revived."""

    key: str
    model: str

    @property
    def url(self) -> str: ...

    def revive(self) -> bool: ...


class Endpoint:
    """A server that is asked with patience: connection faults, 429 and 5xx are tried again with growing pauses.

    A server of our own is revived where it died; its 404 passes as well, for it comes from whoever answers in its place.
    """

    def __init__(self, base_url: str, key: str | None, *, name: str, own: Own | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.name = name
        self._base_url, self._key, self._own, self._timeout_s = base_url, key or "", own, timeout_s
        self._lock = threading.Lock()
        self._round = 0
        self._client: Any = None
        self._client_url = ""

    @classmethod
    def of(cls, own: Own) -> Endpoint:
        """A server that we started; it is watched, so an answer may take its time."""
        return cls(own.url, own.key, name=own.model, own=own, timeout_s=OWN_TIMEOUT_S)

    @property
    def base_url(self) -> str:
        return f"{self._own.url}/v1" if self._own is not None else self._base_url

    def drop(self) -> None:
        """Gives up what is in flight; later calls are sent as ever."""
        with self._lock:
            self._round += 1
            self._close_client()

    close = drop

    def _current(self) -> Any:
        """The client for the server's present address."""
        import openai

        with self._lock:
            if self._client is None or self._client_url != self.base_url:
                self._close_client()
                self._client_url = self.base_url
                self._client = openai.OpenAI(
                    base_url=self.base_url,
                    api_key=self._key or "none",
                    max_retries=0,
                    timeout=openai.Timeout(self._timeout_s, connect=20),
                    http_client=http_client(self.base_url),
                )
            return self._client

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def call(self, method: Callable[[Any], Callable[..., Any]], body: Mapping[str, Any]) -> Any:
        """`method(client)(**body)`; QupError or InputError where it is hopeless. A 400 is raised as it is."""
        import openai
        from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        began = self._round
        pause = wait_random_exponential(multiplier=0.5, max=30)
        late: list[BaseException] = []
        passing_codes = (408, 409, 425, 429) if self._own is None else (401, 404, 408, 409, 425, 429)

        def passing(error: BaseException) -> bool:
            if self._round != began:
                return False
            if isinstance(error, openai.APITimeoutError):
                late.append(error)
                return len(late) < 2
            if isinstance(error, openai.APIStatusError):
                return error.status_code in passing_codes or error.status_code >= 500
            return isinstance(error, openai.APIConnectionError)

        def patience(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = retry_after(error.response.headers) if isinstance(error, openai.APIStatusError) else None
            return pause(state) if asked is None else asked

        def before_next(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            server_error = isinstance(error, openai.APIStatusError) and error.status_code >= 500
            if self._own is not None and (server_error or isinstance(error, openai.APIConnectionError)):
                self._own.revive()

        def send() -> Any:
            if self._round != began:
                raise Interrupted("given up")
            return method(self._current())(**body)

        try:
            retrying = Retrying(
                retry=retry_if_exception(passing), stop=stop_after_attempt(ATTEMPTS), wait=patience, before_sleep=before_next, reraise=True
            )
            return retrying(send)
        except openai.BadRequestError:
            raise
        except openai.APIStatusError as error:
            raise self._hopeless(error) from None
        except openai.APITimeoutError:
            raise InputError(f"{self.base_url} did not answer within {self._timeout_s:g} s, twice") from None
        except openai.APIConnectionError as error:
            raise InputError(f"{self.base_url} can't be reached: {secret_free(str(error.__cause__ or error), self._key)}") from None

    def _hopeless(self, error: Any) -> QupError:
        said = secret_free(str(error.message), self._key)[:300]
        if error.status_code in (401, 403):
            return InputError(f"{self.base_url} refused the key ({error.status_code}): {said}")
        if error.status_code == 404:
            return InputError(f"{self.base_url} knows no model {self.name!r}, or is not the address of an OpenAI-compatible server: {said}")
        return InputError(f"{self.base_url}: {error.status_code} after {ATTEMPTS} attempts: {said}")


def seed_of(sampling: Sampling, request: Request, first: int) -> int:
    """A seed for the samples of a request from number `first` on, in the range that servers take."""
    return bits(sampling.seed or 0, "server", request.id, first) & 0x7FFFFFFF


def fan_out(
    clamped: Clamped, ask: Callable[[Request, int], list[Sample]], stopping: Callable[[], bool], endpoint: Endpoint, concurrency: int
) -> Iterator[tuple[int, list[Sample]]]:
    """`ask(request, room)` for all requests, `concurrency` side by side; results as they come. Raises Interrupted, and what `ask` raises."""
    concurrency = min(concurrency, MOST_CONCURRENT)
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="qup-generate")
    waiting: dict[Future[list[Sample]], int] = {}
    todo = iter(range(len(clamped.requests)))
    try:
        while True:
            while len(waiting) < 2 * concurrency and (index := next(todo, None)) is not None:
                waiting[pool.submit(ask, clamped.requests[index], clamped.room[index])] = index
            if not waiting:
                return
            done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()
            if stopping():
                raise Interrupted("asked to stop; finished shards are kept")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if waiting:
            endpoint.drop()


def gather(request: Request, sampling: Sampling, ask: Callable[[int, int], list[Sample]]) -> list[Sample]:
    """Exactly n samples: `ask(first, wanted)` until there are enough, for many servers ignore `n`.

    Greedy ones are equal: one is asked for (vLLM refuses more) and repeated. Samples that the server left undone don't count.
    """
    wanted = 1 if sampling.temperature == 0 else request.n
    samples: list[Sample] = []
    empty = 0
    while len(samples) < wanted:
        found = [sample for sample in ask(len(samples), wanted - len(samples)) if sample.finish not in UNDONE]
        samples += found[: wanted - len(samples)]
        empty = 0 if found else empty + 1
        if empty == EMPTY_ROUNDS:
            raise QupError(f"problem {request.id}: the server answered {EMPTY_ROUNDS} times without a single finished choice")
    return samples * (request.n // wanted)


class ChatBackend:
    """Any OpenAI-compatible chat endpoint. It applies a chat template of its own; the ids are the local tokenizer's."""

    OPTIONAL = ("logprobs", "seed", "n")
    """Fields that a server may refuse; they are left out one after the other."""

    def __init__(self, student: Student, sampling: Sampling, ctx: Context) -> None:
        if not sampling.base_url or not sampling.served_model:
            raise InputError("sampling.backend=openai: sampling.base_url and sampling.served_model are needed")
        self._student, self._sampling, self._stopping = student, sampling, ctx.stopping
        self._key = os.environ.get(sampling.api_key_env)
        self._endpoint = Endpoint(sampling.base_url, self._key, name=sampling.served_model)
        self._left_out: set[str] = set()
        self._check_name(sampling.base_url, sampling.served_model)
        self.facts: dict[str, Any] = {"backend": "openai", "base_url": sampling.base_url, "served_model": sampling.served_model}

    def generate(self, clamped: Clamped) -> Iterator[tuple[int, list[Sample]]]:
        return fan_out(clamped, self._ask, self._stopping, self._endpoint, CONCURRENCY)

    def _check_name(self, base_url: str, name: str) -> None:
        """Raises InputError where the endpoint lists its models and `name` is none of them; many list none, or not all."""
        try:
            names = [model["id"] for model in served(base_url.rstrip("/").removesuffix("/v1"), self._key, timeout_s=10)]
        except (OSError, ValueError):
            return
        if is_loopback(base_url) and names and name not in names:
            raise InputError(f"sampling.served_model={name!r}: {base_url} serves {', '.join(names[:10])}")

    def _ask(self, request: Request, room: int) -> list[Sample]:
        return gather(request, self._sampling, lambda first, wanted: self._send(request, room, first, wanted))

    def _send(self, request: Request, room: int, first: int, wanted: int) -> list[Sample]:
        import openai

        sampling = self._sampling
        body: dict[str, Any] = {
            "model": sampling.served_model,
            "messages": list(request.messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": room,
            "logprobs": True,
            "seed": seed_of(sampling, request, first),
            "n": wanted,
        }
        if self._student.model.stop:
            body["stop"] = list(self._student.model.stop)
        extra = {name: value for name, value in (("top_k", sampling.top_k), ("min_p", sampling.min_p)) if value}
        while True:
            sent = {name: value for name, value in body.items() if name not in self._left_out}
            try:
                answer = self._endpoint.call(lambda client: client.chat.completions.create, {**sent, "extra_body": extra})
                return [self._sample(choice) for choice in answer.choices or []]
            except openai.BadRequestError as error:
                left = [name for name in self.OPTIONAL if name in sent]
                if not left:
                    raise InputError(f"{self._endpoint.base_url} refuses problem {request.id}: {str(error.message)[:300]}") from None
                self._left_out.add(next((name for name in left if name in str(error.message)), left[0]))

    def _sample(self, choice: Any) -> Sample:
        text = choice.message.content or ""
        finish = str(choice.finish_reason or "length")
        ids = encode_response(self._student.tokenizer, text, self._student.train_stop_id)
        ids = ids if finish == "stop" else ids[:-1]
        told = [token.logprob for token in (choice.logprobs.content or [])] if choice.logprobs else []
        return Sample(tuple(ids), fitted(told, len(ids)), finish, text)

    def close(self) -> None:
        self._endpoint.close()

    def __enter__(self) -> ChatBackend:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def fitted(logprobs: list[float], n: int) -> tuple[float, ...]:
    """Log-probabilities for n tokens: as told, the stop token's NaN where it was left out, all NaN where they don't belong to these."""
    if len(logprobs) == n - 1:
        logprobs = [*logprobs, UNKNOWN]
    return tuple(logprobs) if len(logprobs) == n else (UNKNOWN,) * n
