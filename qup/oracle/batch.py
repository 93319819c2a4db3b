"""The batch API: a file of requests goes up, the answers come down within a day at half the price.

A batch's state is noted before the batch is made and after, so a kill loses neither the batch nor what was paid:
whoever asks one of its questions next, in this study or another, waits for it and collects all of it.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from qup.config.schema import Oracle
from qup.errors import Interrupted
from qup.oracle.asks import Answer, Ask, Request, endpoint, estimated_tokens
from qup.oracle.batch_state import BatchState, BatchStates
from qup.oracle.budget import BATCH_DISCOUNT, Budget
from qup.oracle.chat import api_key
from qup.oracle.completions import Reply, read_completion, translate, unusable
from qup.oracle.faults import Broken, Hopeless, Limited, Rejected
from qup.oracle.ledger import Ledger
from qup.oracle.store import AnswerStore, answer_row
from qup.serving.http import http_client

MOST_REQUESTS = 5_000
MOST_BYTES = 90 << 20
SIDE_BY_SIDE = 4
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")
_TAG = "qup_batch"
_GIVEN_UP = 1 << 30


class Batches:
    """Asks through batches: what a batch under way already holds is waited for, the rest is sent up."""

    def __init__(
        self,
        oracle: Oracle,
        folder: Path,
        store: AnswerStore,
        ledger: Ledger,
        budget: Budget,
        stopping: Callable[[], bool],
        log: logging.Logger,
        poll_s: tuple[float, float] = (2.0, 60.0),
    ) -> None:
        self._oracle, self._store, self._ledger, self._budget = oracle, store, ledger, budget
        self._stopping, self._log, self._poll_s = stopping, log, poll_s
        self._service = f"the endpoint {endpoint(oracle.base_url)}"
        self._states = BatchStates(folder, endpoint(oracle.base_url))
        self._failures: dict[str, int] = {}
        self._client: Any = None
        self._key = ""

    def ask(self, asks: Iterable[Ask | None], request: Callable[[Ask], Request]) -> Iterator[tuple[Ask, Answer]]:
        """As OracleClient.ask; holds the questions of a few batches at a time."""
        source = iter(asks)
        taken = 1
        while taken:
            taken = size = 0
            wanted: dict[str, tuple[Request, list[Ask]]] = {}
            for ask in source:
                if ask is None:
                    break
                taken += 1
                asked = request(ask)
                row = self._store.get(asked.key)
                if row is not None:
                    yield ask, Answer(row["answer"], row["finish"], row["input_tokens"], row["output_tokens"], row["usd"], asked.key, True)
                    continue
                wanted.setdefault(asked.key, (asked, []))[1].append(ask)
                size += len(json.dumps(asked.body))
                if len(wanted) >= SIDE_BY_SIDE * MOST_REQUESTS or size >= SIDE_BY_SIDE * MOST_BYTES:
                    break
            while wanted:
                yield from self._round(wanted)

    def _round(self, wanted: dict[str, tuple[Request, list[Ask]]]) -> Iterator[tuple[Ask, Answer]]:
        """Sends up what is in no batch yet, collects every batch that holds something wanted, and gives what is settled."""
        running = [state for state in self._states.waiting() if not wanted.keys().isdisjoint(state.requests)]
        under_way = {key for state in running for key in state.requests}
        fresh = [asked for key, (asked, _) in wanted.items() if key not in under_way]
        for part in self._parts(fresh, bool(running)):
            running.append(self._send_up(part))
        for state in running:
            self._collect(state)
        for key in list(wanted):
            row = self._store.get(key)
            if row is not None:
                answer = Answer(row["answer"], row["finish"], row["input_tokens"], row["output_tokens"], row["usd"], key, False)
            elif self._failures.get(key, 0) > self._oracle.max_retries:
                answer = Answer("", "error", 0, 0, 0.0, key, False)
            else:
                continue
            for ask in wanted.pop(key)[1]:
                yield ask, answer

    def _parts(self, fresh: list[Request], others: bool) -> Iterator[list[Request]]:
        """Batches' worth of requests, as many as fit the budget if each were as dear as can be; raises BudgetExceeded where none does."""
        left = self._budget.left()
        part: list[Request] = []
        size = sent = 0
        for asked in fresh:
            left -= self._budget.price(2 * estimated_tokens(asked.body["messages"]), self._oracle.max_tokens, BATCH_DISCOUNT)
            if left < 0:
                break
            part.append(asked)
            sent += 1
            size += len(json.dumps(asked.body)) + 200
            if len(part) >= MOST_REQUESTS or size >= MOST_BYTES:
                yield part
                part, size = [], 0
        if part:
            yield part
        if fresh and not sent and not others:
            raise self._budget.exceeded()

    def _send_up(self, asked: list[Request]) -> BatchState:
        lines = (
            json.dumps({"custom_id": one.key, "method": "POST", "url": "/v1/chat/completions", "body": one.body}, ensure_ascii=True)
            for one in asked
        )
        data = "\n".join(lines).encode()
        uploaded = self._call(lambda client: client.files.create(file=("qup.jsonl", io.BytesIO(data)), purpose="batch"))
        state = self._states.new(self._oracle.model, asked)
        for one in asked:
            self._ledger.note("b", one.key)
        self._ledger.sync()
        made = self._call(
            lambda client: client.batches.create(
                input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={_TAG: state.name}
            ),
            buys=True,
        )
        state.batch_id = made.id
        self._states.save(state)
        self._log.info("oracle: batch %s with %d requests is with %s", made.id, len(asked), self._service)
        return state

    def _collect(self, state: BatchState) -> None:
        """Waits for a batch to end, stores its answers, and books them unless another process did."""
        batch = self._wait(state)
        fates: dict[str, tuple[object, ...]] = {}
        if batch is not None:
            for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
                rows = [row for row in self._rows(file_id) if row.get("custom_id") in state.requests]
                records = [record for row in rows if (record := self._line(row, state, fates))]
                if records:
                    self._store.write(records)
        if self._states.collected(state):
            for key in state.requests:
                self._ledger.note(*fates.get(key, ("r", key, "no_answer")))  # type: ignore[arg-type]
            self._ledger.sync()
        for key in state.requests.keys() - fates.keys():
            self._failures[key] = self._failures.get(key, 0) + 1
        if batch is not None and batch.status in ("failed", "cancelled"):
            reasons = "; ".join(str(error.message) for error in (batch.errors.data or [])) if batch.errors else ""
            advice = reasons or ("run again to send the rest anew" if batch.status == "cancelled" else "no reason given")
            raise Hopeless(f"{self._service}: batch {batch.id} has {batch.status}: {advice} (oracle.model={self._oracle.model!r})")

    def _rows(self, file_id: str) -> list[dict[str, Any]]:
        content = self._call(lambda client: client.files.content(file_id).text)
        return [_row(line) for line in str(content).splitlines()]

    def _line(self, row: dict[str, Any], state: BatchState, fates: dict[str, tuple[object, ...]]) -> dict[str, Any] | None:
        """One line of an output or error file: the row for the answer store, None where there is no answer."""
        key = str(row["custom_id"])
        about = state.requests[key]
        response = row.get("response") or {}
        try:
            status = int(response.get("status_code") or 500)
            if status != 200:
                raise unusable(
                    status, response.get("body") or {"error": row.get("error") or {}}, {}, self._oracle, self._service, self._key
                )
            reply = read_completion(response["body"], [])
        except Rejected as error:
            if error.status != "filtered":
                self._failures[key] = _GIVEN_UP
                fates[key] = ("r", key, error.status)
                self._log.warning("oracle: request %s (%s) rejected: %s", about["id"], about["task"], error)
                return None
            reply = Reply("", "refused", 0, 0)
        except (Broken, Limited) as error:
            self._failures[key] = self._failures.get(key, 0) + 1
            fates[key] = ("r", key, error.status)
            return None
        usd = self._budget.price(reply.input_tokens, reply.output_tokens, BATCH_DISCOUNT)
        fates[key] = ("a", key, reply.input_tokens, reply.output_tokens, usd)
        return answer_row(key, about, state.model, reply.text, reply.finish, reply.input_tokens, reply.output_tokens, usd)

    def _wait(self, state: BatchState) -> Any:
        """The batch, once it ended in whatever way; None where it was never made."""
        if state.batch_id is None:
            made = self._call(lambda client: _tagged(client, state.name))
            if not made:
                return None
            state.batch_id = made[0]
            self._states.save(state)
        pause = self._poll_s[0]
        while True:
            batch = self._call(lambda client: client.batches.retrieve(state.batch_id))
            if batch.status not in _OPEN:
                return batch
            self._sleep(pause)
            pause = min(pause * 1.5, self._poll_s[1])

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stopping():
                raise Interrupted("asked to stop; the batches go on at the endpoint, and the next run collects them")
            time.sleep(min(left, 0.2))

    def _call(self, what: Callable[[Any], Any], buys: bool = False) -> Any:
        """A call of the API; one that buys nothing is repeated after transport faults."""
        import openai

        if self._client is None:
            self._key = api_key(self._oracle, self._oracle.base_url)
            url = self._oracle.base_url
            self._client = openai.OpenAI(
                api_key=self._key or "none", base_url=url, max_retries=0, timeout=self._oracle.timeout_s, http_client=http_client(url)
            )
        most = 0 if buys else self._oracle.max_retries
        for tried in range(most + 1):
            try:
                return what(self._client)
            except openai.OpenAIError as error:
                meaning = translate(error, self._oracle, self._service, self._key)
            if not isinstance(meaning, Broken | Limited) or tried == most:
                break
            self._sleep(meaning.retry_after or min(0.5 * 2.0**tried, 60.0))
        if isinstance(meaning, Hopeless):
            raise meaning
        raise Hopeless(f"{self._service}: its batch API can't be used: {meaning}; choose oracle.mode=chat, or run again later")


def _tagged(client: Any, name: str) -> list[str]:
    """Ids of the batches that carry a tag."""
    return [batch.id for batch in client.batches.list(limit=100) if (batch.metadata or {}).get(_TAG) == name]


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
