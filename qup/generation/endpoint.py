"""Responses from an OpenAI-compatible server: any chat endpoint, and what the vLLM backend shares with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from qup.config.schema import Sampling
from qup.draws import bits
from qup.errors import InputError, Interrupted, QupError
from qup.generation.records import Clamped, Request, Sample
from qup.generation.student import Student
from qup.http import retry_after, secret_free
from qup.models import encode_response
from qup.pipeline.context import Context

CONCURRENCY = 32
ATTEMPTS = 8
TIMEOUT_S = 900.0
"""Longest wait for one answer; a server that lets it pass twice counts as broken."""
EMPTY_ROUNDS = 4
"""Answers in a row without a choice before a server counts as broken."""
UNKNOWN = float("nan")


class Endpoint:
    """A server that is asked with patience: connection faults, 429 and 5xx are tried again with growing pauses."""

    def __init__(
        self, base_url: str, key: str | None, *, name: str, revive: Callable[[], bool] = lambda: False, timeout_s: float = TIMEOUT_S
    ) -> None:
        import openai

        self.base_url, self.name, self._key = base_url, name, key or ""
        self._revive, self._timeout_s = revive, timeout_s
        self._closed = False
        self.client = openai.OpenAI(base_url=base_url, api_key=key or "none", max_retries=0, timeout=openai.Timeout(timeout_s, connect=20))

    def close(self) -> None:
        """Drops what is in flight."""
        self._closed = True
        self.client.close()

    def call(self, function: Callable[..., Any], body: Mapping[str, Any]) -> Any:
        """`function(**body)`; QupError or InputError where it is hopeless. A 400 is raised as it is."""
        import openai
        from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        pause = wait_random_exponential(multiplier=0.5, max=30)
        late: list[BaseException] = []

        def passing(error: BaseException) -> bool:
            if self._closed:
                return False
            if isinstance(error, openai.APITimeoutError):
                late.append(error)
                return len(late) < 2
            if isinstance(error, openai.APIStatusError):
                return error.status_code in (408, 409, 425, 429) or error.status_code >= 500
            return isinstance(error, openai.APIConnectionError)

        def patience(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = retry_after(error.response.headers) if isinstance(error, openai.APIStatusError) else None
            return pause(state) if asked is None else asked

        def before_next(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, openai.APIConnectionError):
                self._revive()

        try:
            retrying = Retrying(
                retry=retry_if_exception(passing), stop=stop_after_attempt(ATTEMPTS), wait=patience, before_sleep=before_next, reraise=True
            )
            return retrying(function, **body)
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
    clamped: Clamped, ask: Callable[[Request, int], list[Sample]], stopping: Callable[[], bool], endpoint: Callable[[], Endpoint]
) -> Iterator[tuple[int, list[Sample]]]:
    """`ask(request, room)` for all requests, many side by side; results as they come. Raises Interrupted, and what `ask` raises."""
    pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="qup-generate")
    waiting: dict[Future[list[Sample]], int] = {}
    todo = iter(range(len(clamped.requests)))
    try:
        while True:
            while len(waiting) < 2 * CONCURRENCY and (index := next(todo, None)) is not None:
                waiting[pool.submit(ask, clamped.requests[index], clamped.room[index])] = index
            if not waiting:
                return
            done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()
            if stopping():
                raise Interrupted("asked to stop; finished shards are kept")
    finally:
        if waiting:
            endpoint().close()
        pool.shutdown(wait=False, cancel_futures=True)


def gather(request: Request, ask: Callable[[int, int], list[Sample]]) -> list[Sample]:
    """Exactly n samples: `ask(first, wanted)` until there are enough, for many servers ignore `n`."""
    samples: list[Sample] = []
    empty = 0
    while len(samples) < request.n:
        found = ask(len(samples), request.n - len(samples))
        samples += found[: request.n - len(samples)]
        empty = 0 if found else empty + 1
        if empty == EMPTY_ROUNDS:
            raise QupError(f"problem {request.id}: the server answered {EMPTY_ROUNDS} times without a single choice")
    return samples


class ChatBackend:
    """Any OpenAI-compatible chat endpoint. It applies a chat template of its own; the ids are the local tokenizer's."""

    OPTIONAL = ("logprobs", "seed", "n")
    """Fields that a server may refuse; they are left out one after the other."""

    def __init__(self, student: Student, sampling: Sampling, ctx: Context) -> None:
        if not sampling.base_url or not sampling.served_model:
            raise InputError("sampling.backend=openai: sampling.base_url and sampling.served_model are needed")
        self._student, self._sampling, self._stopping = student, sampling, ctx.stopping
        self._endpoint = Endpoint(sampling.base_url, os.environ.get(sampling.api_key_env), name=sampling.served_model)
        self._left_out: set[str] = set()
        self.facts: dict[str, Any] = {"backend": "openai", "base_url": sampling.base_url, "served_model": sampling.served_model}

    def generate(self, clamped: Clamped) -> Iterator[tuple[int, list[Sample]]]:
        return fan_out(clamped, self._ask, self._stopping, lambda: self._endpoint)

    def _ask(self, request: Request, room: int) -> list[Sample]:
        return gather(request, lambda first, wanted: self._send(request, room, first, wanted))

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
                answer = self._endpoint.call(self._endpoint.client.chat.completions.create, {**sent, "extra_body": extra})
                return [self._sample(choice) for choice in answer.choices or []]
            except openai.BadRequestError as error:
                left = [name for name in self.OPTIONAL if name in sent]
                if not left:
                    raise InputError(f"{self._endpoint.base_url} refuses problem {request.id}: {str(error.message)[:300]}") from None
                self._left_out.add(next((name for name in left if name in str(error.message)), left[0]))

    def _sample(self, choice: Any) -> Sample:
        text = choice.message.content or ""
        finish = "stop" if choice.finish_reason == "stop" else "length"
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
