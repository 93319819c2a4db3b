"""The client of every stage that asks an Oracle or a judge."""

from __future__ import annotations

import logging
import queue
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from qup.config.fingerprint import digest
from qup.config.schema import Oracle, Vllm
from qup.errors import InputError, Interrupted
from qup.oracle.asks import Answer, Ask, Request, request
from qup.oracle.backends import Backend, make_backend
from qup.oracle.bucket import SharedBucket
from qup.oracle.budget import Budget
from qup.oracle.circuit import Circuit
from qup.oracle.completions import Reply
from qup.oracle.ledger import Ledger, Spent
from qup.oracle.sender import Results, Sender
from qup.oracle.store import AnswerStore, answer_row
from qup.oracle.window import Window
from qup.pipeline.context import Context

LEDGER = "oracle"
"""Folder of a stage's work that says what was spent."""
_GRACE_S = 5.0
_PATIENCE_S = 900.0
_END = object()


def open_oracle(
    oracle: Oracle,
    shared: Path,
    *,
    max_usd: float | None = None,
    stopping: Callable[[], bool] = lambda: False,
    log: logging.Logger | None = None,
    ledger: Path | None = None,
    gpus: str = "0",
    vllm: Vllm | None = None,
) -> OracleClient:
    """A client for the Oracle that the configuration names; use it as a context manager.

    `shared` is `Context.shared`: answers lie in `<shared>/oracle/answers`, rate limits in `<shared>/oracle/pace`.
    `ledger` is a folder that survives kills, `ctx.work / "oracle"`: what is written there makes `spent`, and `max_usd`,
    count over all workers and restarts of the stage. `gpus` are the stage's, for an Oracle that is served there as
    `vllm` says.
    Raises InputError where the Oracle can't be asked at all.
    """
    return OracleClient(oracle, shared / "oracle", max_usd, stopping, log or logging.getLogger("qup"), ledger, gpus, vllm or Vllm())


def stage_oracle(oracle: Oracle, ctx: Context, max_usd: float | None, vllm: Vllm) -> OracleClient:
    """A stage's client; what it spends is written down in the stage's work."""
    return open_oracle(
        oracle,
        ctx.shared,
        max_usd=max_usd,
        stopping=ctx.stopping,
        log=ctx.log,
        ledger=ctx.work / LEDGER,
        gpus=ctx.resources.gpus,
        vllm=vllm,
    )


class OracleClient:
    """Asks, and never asks the same twice.

    `ask` streams: it takes questions from the iterable as there is room for them and gives answers as they come, in no
    particular order. An answer lies in the store before it is given. `max_usd` holds to within the requests in flight.
    """

    def __init__(
        self,
        oracle: Oracle,
        folder: Path,
        max_usd: float | None,
        stopping: Callable[[], bool],
        log: logging.Logger,
        ledger: Path | None,
        gpus: str,
        vllm: Vllm,
    ) -> None:
        self._oracle, self._folder, self._stopping, self._log = oracle, folder, stopping, log
        if oracle.mode == "batch" and oracle.backend != "openai":
            raise InputError(f"oracle.mode=batch: needs oracle.backend=openai, and is {oracle.backend!r}; choose mode=chat")
        self._backend: Backend = make_backend(oracle, vllm, ledger or folder, gpus, stopping, self._log)
        self._store = AnswerStore(folder / "answers") if self._backend.stored else None
        self._ledger = Ledger(ledger)
        self._budget = Budget(oracle, max_usd, self._ledger)
        self._sender: Sender | None = None

    @property
    def batched(self) -> bool:
        """In batch mode one `ask` should be given as many questions as there are: each batch may take hours."""
        return self._oracle.mode == "batch"

    @property
    def spent(self) -> Spent:
        """What was sent and bought so far, by every process that shares the ledger."""
        return self._ledger.total()

    def ask(self, asks: Iterable[Ask | None]) -> Iterator[tuple[Ask, Answer]]:
        """Answers, each with its question.

        The iterable may give None for "nothing yet, come again after the next answer"; so the caller can add questions
        that depend on answers. None with nothing under way ends it.

        Raises Interrupted, BudgetExceeded, and InputError where the Oracle can't be asked any more; each time what was
        answered is stored, and a rerun goes on from there.
        """
        if self.batched:
            from qup.oracle.batch import Batches

            assert self._store is not None
            batches = Batches(self._oracle, self._folder / "batches", self._store, self._ledger, self._budget, self._stopping, self._log)
            yield from batches.ask(asks, self._request)
            return
        yield from self._chat(iter(asks))

    def close(self) -> None:
        """Gives requests in flight a few seconds to end, then ends."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        if self._store is not None:
            self._store.close()
        self._ledger.close()

    def __enter__(self) -> OracleClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _chat(self, source: Iterator[Ask | None]) -> Iterator[tuple[Ask, Answer]]:
        results: Results = queue.SimpleQueue()
        waiting: dict[str, list[Ask]] = defaultdict(list)
        room = 4 * self._oracle.concurrency
        exhausted = False
        try:
            while True:
                while not exhausted and len(waiting) < room:
                    self._check()
                    ask = next(source, _END)
                    if ask is _END:
                        exhausted = True
                        break
                    if ask is None:
                        break
                    assert isinstance(ask, Ask)
                    asked = self._request(ask)
                    known = None if asked.key in waiting else self._known(asked)
                    if known is not None:
                        yield ask, known
                        continue
                    waiting[asked.key].append(ask)
                    if len(waiting[asked.key]) == 1:
                        self._running().submit(asked, results)
                if not waiting:
                    return
                outcome = self._next(results)
                if outcome is None:
                    continue
                asked, answer = outcome
                if isinstance(answer, BaseException):
                    raise answer
                for index, ask in enumerate(waiting.pop(asked.key)):
                    yield ask, answer if index == 0 else _again(answer)
        finally:
            if waiting and self._sender is not None:
                self._sender.drain(results, _GRACE_S)

    def _next(self, results: Results) -> tuple[Request, Answer | BaseException] | None:
        self._check()
        try:
            return results.get(timeout=0.2)
        except queue.Empty:
            return None

    def _check(self) -> None:
        if self._stopping():
            raise Interrupted("asked to stop; the Oracle's answers so far are stored")

    def _request(self, ask: Ask) -> Request:
        return request(self._oracle, self._backend.identity, ask)

    def _known(self, asked: Request) -> Answer | None:
        row = self._store.get(asked.key) if self._store is not None else None
        if row is None:
            return None
        return Answer(row["answer"], row["finish"], row["input_tokens"], row["output_tokens"], row["usd"], asked.key, True)

    def _keep(self, replies: Sequence[tuple[Request, Reply, float]]) -> None:
        if self._store is not None:
            self._store.write([_row(self._oracle.model, *reply) for reply in replies])

    def _running(self) -> Sender:
        """The sender, started with the first question that isn't stored."""
        if self._sender is None:
            self._backend.prepare()
            oracle, service = self._oracle, self._backend.service
            self._sender = Sender(
                self._backend,
                keep=self._keep,
                ledger=self._ledger,
                budget=self._budget,
                window=Window(oracle.concurrency),
                circuit=Circuit(service, oracle.max_retries, _PATIENCE_S),
                requests=self._bucket("requests", oracle.rpm),
                tokens=self._bucket("tokens", oracle.tpm),
                max_retries=oracle.max_retries,
                log=self._log,
            )
        return self._sender

    def _bucket(self, unit: str, per_minute: float | None) -> SharedBucket | None:
        if per_minute is None:
            return None
        name = digest([self._backend.identity, self._oracle.model, unit])[:16]
        return SharedBucket(self._folder / "pace" / f"{name}.{unit}", per_minute)


def _row(model: str, asked: Request, reply: Reply, usd: float) -> dict[str, Any]:
    about = {"task": asked.ask.task, "id": asked.ask.id, "attempt": asked.ask.attempt, "messages_sha256": digest(asked.body["messages"])}
    return answer_row(asked.key, about, model, reply.text, reply.finish, reply.input_tokens, reply.output_tokens, usd)


def _again(answer: Answer) -> Answer:
    return Answer(
        answer.text, answer.finish, answer.input_tokens, answer.output_tokens, answer.usd, answer.request_key, answer.finish != "error"
    )
