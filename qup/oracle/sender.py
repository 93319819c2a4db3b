"""Sends requests side by side: paced, retried, paid for, and stored before anybody sees the answer."""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from qup.errors import Interrupted
from qup.oracle.asks import Answer, Request, estimated_tokens
from qup.oracle.backends import Backend
from qup.oracle.bucket import SharedBucket
from qup.oracle.budget import Budget
from qup.oracle.circuit import Circuit
from qup.oracle.completions import Reply
from qup.oracle.faults import Broken, Hopeless, Limited, Rejected
from qup.oracle.ledger import Ledger
from qup.oracle.window import Window

Results = queue.SimpleQueue[tuple[Request, Answer | BaseException]]
Keep = Callable[[Sequence[tuple[Request, Reply, float]]], None]

_BACKOFF = wait_random_exponential(multiplier=0.5, max=60)


@dataclass
class _Trip:
    """One request's way through its sends."""

    request: Request
    answers_before: int
    sends: int = 0
    faults: int = 0


class Sender:
    """An event loop in a thread of its own. `submit` hands it a request; the answer, or what went wrong, comes through `results`.

    `keep` stores replies and returns once they are on disk; it is called from another thread, with as many as are waiting.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        keep: Keep,
        ledger: Ledger,
        budget: Budget,
        window: Window,
        circuit: Circuit,
        requests: SharedBucket | None,
        tokens: SharedBucket | None,
        max_retries: int,
        log: logging.Logger,
    ) -> None:
        self._backend, self._keep, self._ledger, self._budget = backend, keep, ledger, budget
        self._window, self._circuit, self._requests, self._tokens = window, circuit, requests, tokens
        self._max_retries, self._log = max_retries, log
        self._loop = asyncio.new_event_loop()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="qup-oracle-disk")
        self._probe = asyncio.Lock()
        self._tasks: dict[asyncio.Task[None], Results] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._unsaved: list[tuple[Request, Reply, float, asyncio.Future[None]]] = []
        self._saving: asyncio.Task[None] | None = None
        self._halted: Exception | None = None
        self._mean_output = 0.0
        self._thread = threading.Thread(target=self._loop.run_forever, name="qup-oracle", daemon=True)
        self._thread.start()

    def submit(self, request: Request, results: Results) -> None:
        """Starts a request; returns at once."""
        self._loop.call_soon_threadsafe(self._start, request, results)

    def drain(self, results: Results | None, seconds: float) -> None:
        """Sends nothing more (of those that report to `results`, or at all) and waits for what is in flight, so long."""
        asyncio.run_coroutine_threadsafe(self._drain(results, seconds), self._loop).result()

    def close(self) -> None:
        """Ends the thread; what is still in flight is given up, and in doubt."""
        self.drain(None, 0.0)
        asyncio.run_coroutine_threadsafe(self._backend.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._disk.shutdown()
        for bucket in (self._requests, self._tokens):
            if bucket is not None:
                bucket.close()

    def _start(self, request: Request, results: Results) -> None:
        if self._halted is not None:
            results.put((request, self._halted))
            return
        task = self._loop.create_task(self._serve(request, results))
        self._tasks[task] = results
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _drain(self, results: Results | None, seconds: float) -> None:
        if results is None:
            self._halted = self._halted or Interrupted("the client was closed")
        mine = [task for task, to in self._tasks.items() if results is None or to is results]
        for task in mine:
            if task not in self._sending:
                task.cancel()
        deadline = time.monotonic() + seconds
        while any(task in self._sending for task in mine) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        if self._saving is not None:
            await self._saving

    async def _serve(self, request: Request, results: Results) -> None:
        trip = _Trip(request, self._circuit.answers)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((Limited, Broken)),
            wait=_wait,
            stop=lambda _: trip.faults > self._max_retries,
            reraise=True,
        )
        try:
            results.put((request, await retrying(self._send, trip)))
        except Broken as error:
            if self._circuit.answers == trip.answers_before and not self._circuit.alone():
                self._halted = self._circuit.opened(error)
                results.put((request, self._halted))
            else:
                self._log.warning(
                    "oracle: request %s (%s) given up after %d sends: %s", request.ask.id, request.ask.task, trip.sends, error
                )
                results.put((request, _nothing(request)))
        except Exception as error:
            self._halted = error
            results.put((request, error))

    async def _send(self, trip: _Trip) -> Answer:
        async with self._window.slot():
            await asyncio.sleep(self._window.pause())
            try:
                while self._circuit.probing:
                    async with self._probe:
                        if self._circuit.probing:
                            await asyncio.sleep(random.uniform(0.25, 0.5) * min(2**self._circuit.failed_probes, 120))
                            return await self._post(trip, probe=True)
                return await self._post(trip, probe=False)
            except Limited:
                await asyncio.sleep(self._window.penalty())
                raise

    async def _post(self, trip: _Trip, probe: bool) -> Answer:
        """One send. Notes it before, and its fate after."""
        request, key = trip.request, trip.request.key
        tokens = estimated_tokens(request.body["messages"]) + self._mean_output
        if self._requests is not None:
            await self._requests.take(1)
        if self._tokens is not None:
            await self._tokens.take(tokens)
        await self._affordable()
        if self._halted is not None:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        self._ledger.note("t" if trip.sends else "s", key)
        trip.sends += 1
        self._sending.add(task)
        started = time.monotonic()
        try:
            reply = await self._backend.send(request)
            self._window.answered(time.monotonic() - started)
            self._circuit.good()
            return await self._kept(request, reply, tokens)
        except Limited as error:
            self._ledger.note("r", key, error.status)
            self._window.limited(error.retry_after)
            self._circuit.limited(error)
            raise
        except Broken as error:
            trip.faults += 1
            self._ledger.note("d" if error.doubtful else "r", key, error.status)
            self._circuit.broken(error, key, probe)
            raise
        except Rejected as error:
            self._ledger.note("r", key, error.status)
            return await self._rejected(request, error)
        except Hopeless:
            self._ledger.note("r", key, "refused")
            raise
        except asyncio.CancelledError:
            self._ledger.note("d", key, "given_up")
            raise
        finally:
            self._sending.discard(task)

    async def _affordable(self) -> None:
        """Waits while money may come free; raises BudgetExceeded once nothing is in flight and no more fits."""
        while not self._budget.allows_another():
            if not self._sending:
                raise self._budget.exceeded()
            await asyncio.sleep(0.02)

    async def _rejected(self, request: Request, error: Rejected) -> Answer:
        if error.status == "filtered":
            return await self._kept(request, Reply("", "refused", 0, 0), None)
        if error.status != "too_long" and not self._circuit.proven:
            raise Hopeless(
                f"{self._backend.service} rejects the requests as they are: {error}; check oracle.body, oracle.temperature and oracle.max_tokens"
            )
        self._log.warning("oracle: request %s (%s) rejected: %s", request.ask.id, request.ask.task, error)
        return _nothing(request)

    async def _kept(self, request: Request, reply: Reply, tokens: float | None) -> Answer:
        """Stores a reply together with whatever else waits, and only then hands it on."""
        usd = self._budget.price(reply.input_tokens, reply.output_tokens) if self._backend.stored else 0.0
        if not reply.counted and self._mean_output == 0.0:
            self._log.warning("oracle: %s reports no usage; tokens and dollars are guessed from the texts' lengths", self._backend.service)
        self._mean_output += 0.05 * (reply.output_tokens - self._mean_output) if self._mean_output else reply.output_tokens
        done = self._loop.create_future()
        self._unsaved.append((request, reply, usd, done))
        if self._saving is None:
            self._saving = self._loop.create_task(self._save())
        await asyncio.shield(done)
        if tokens is not None:
            self._ledger.note("a", request.key, reply.input_tokens, reply.output_tokens, usd)
            if self._tokens is not None:
                await self._tokens.settle(reply.input_tokens + reply.output_tokens - tokens)
        return Answer(reply.text, reply.finish, reply.input_tokens, reply.output_tokens, usd, request.key, False)

    async def _save(self) -> None:
        while self._unsaved:
            waiting, self._unsaved = self._unsaved, []
            try:
                await self._loop.run_in_executor(self._disk, self._write, [entry[:3] for entry in waiting])
            except Exception as error:
                for *_, done in waiting:
                    done.set_exception(error)
            else:
                for *_, done in waiting:
                    done.set_result(None)
        self._saving = None

    def _write(self, replies: list[Any]) -> None:
        self._keep(replies)
        self._ledger.sync()


def _wait(state: RetryCallState) -> float:
    """As the server asks, and a little at random on top; else random and exponential."""
    error = state.outcome.exception() if state.outcome else None
    asked = getattr(error, "retry_after", None)
    if asked is None:
        return float(_BACKOFF(state))
    return float(asked) + random.uniform(0, 0.1 * asked + 0.05)


def _nothing(request: Request) -> Answer:
    return Answer("", "error", 0, 0, 0.0, request.key, False)
