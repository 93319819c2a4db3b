"""How many requests may be in flight: grows while the server keeps up, shrinks as it turns requests away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_START = 8.0
_EPOCH_S = 0.5
_GROWTH = 0.1
_FIRST_GROWTH = 0.5
_CROWDED = 0.25
_SMOOTHING = 0.4
_QUEUE = 3.0
_FORGETTING = 1.001
_LONGEST_PENALTY_S = 5.0


class Window:
    """An adaptive limit on concurrency, by additive and proportional increase and a decrease in proportion to the share of 429s.

    Once an epoch (half a second or the mean latency, whichever is longer) the window grows by a tenth if it was full,
    and shrinks by half the smoothed share of 429s, as DCTCP does with marked packets. Halving at every 429 would let a
    server that turns away a tenth of its requests whatever their rate throttle us to nothing; this settles where about
    a fifth is turned away. At first, until a quarter is turned away, it grows by half. It does not grow while latency
    stands at more than three times the lowest seen, and shrinks above six times: a queue has formed.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.limit = min(float(most), _START)
        self.in_flight = 0
        self.peak = 0
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._epoch = clock()
        self._good = self._limited = 0
        self._busiest = 0
        self._seconds = 0.0
        self._share = 0.0
        self._latency = 0.0
        self._lowest = float("inf")
        self._closed_until = 0.0
        self._starting = True

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place in flight; waits for one, first come first served."""
        while self.in_flight >= max(1, int(self.limit)):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()
                raise
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self._busiest = max(self._busiest, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1
            self._wake()

    def pause(self) -> float:
        """Seconds that everybody should wait, because the server turns everything away."""
        return max(0.0, self._closed_until - self._clock())

    def penalty(self) -> float:
        """Seconds for which a request that was turned away keeps its slot: as long as if it had been served, or the share
        of 429s would grow with how fast they come."""
        return min(self._latency, _LONGEST_PENALTY_S)

    def answered(self, seconds: float) -> None:
        """A request was served, `seconds` after it was sent."""
        self._good += 1
        self._seconds += seconds
        self._turn()

    def limited(self, retry_after: float | None) -> None:
        """A request was turned away with 429."""
        self._limited += 1
        if self._share > 0.9 and retry_after:
            self._closed_until = max(self._closed_until, self._clock() + retry_after)
        self._turn()

    def _turn(self) -> None:
        now = self._clock()
        if now - self._epoch < max(_EPOCH_S, self._latency):
            return
        self._share += _SMOOTHING * (self._limited / (self._good + self._limited) - self._share)
        if self._good:
            mean = self._seconds / self._good
            self._latency = mean if not self._latency else self._latency + _SMOOTHING * (mean - self._latency)
            self._lowest = min(self._lowest * _FORGETTING, mean)
        full = self._busiest >= int(self.limit)
        queueing = self._latency > _QUEUE * self._lowest
        self._starting = self._starting and not queueing and self._share < _CROWDED
        if full and not queueing:
            self.limit += max(1.0, (_FIRST_GROWTH if self._starting else _GROWTH) * self.limit)
        if self._latency > 2 * _QUEUE * self._lowest:
            self.limit *= 1 - _GROWTH
        if self._limited:
            self.limit *= 1 - self._share / 2
        self.limit = min(max(self.limit, 1.0), float(self.most))
        self._epoch, self._good, self._limited, self._seconds, self._busiest = now, 0, 0, 0.0, self.in_flight
        self._wake()

    def _wake(self) -> None:
        free = max(1, int(self.limit)) - self.in_flight
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1
