"""Tells an Oracle that is down from one that stumbles."""

from __future__ import annotations

import time
from collections.abc import Callable

from qup.oracle.faults import Broken, Hopeless, Limited

_NEW = 4
_PROVEN = 16
_NEW_PROBES = 1


class Circuit:
    """Counts failures in a row, over all requests.

    Closed: everything may be sent. Half open, after so many failures in a row: one request at a time, a probe. Open,
    after so many failing probes: no more is sent. An endpoint that never answered gets little patience, one that did
    gets as many probes, ever further apart, as a request has retries. Turned away with 429 for `patience_s` on end
    counts as down too.
    """

    def __init__(self, service: str, probes: int, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._service, self._probes, self._patience_s, self._clock = service, max(1, probes), patience_s, clock
        self._failures = 0
        self._failed_probes = 0
        self._failing: set[str] = set()
        self._limited_since: float | None = None
        self.answers = 0
        """How often the endpoint answered."""

    @property
    def proven(self) -> bool:
        """Whether the endpoint ever answered."""
        return self.answers > 0

    @property
    def probing(self) -> bool:
        """Half open: one request at a time."""
        return self._failures >= (_PROVEN if self.proven else _NEW) and len(self._failing) > 1

    @property
    def failed_probes(self) -> int:
        return self._failed_probes

    def good(self) -> None:
        """An answer came."""
        self._failures = self._failed_probes = 0
        self._failing.clear()
        self._limited_since = None
        self.answers += 1

    def broken(self, error: Broken, key: str, probe: bool) -> None:
        """A request failed; raises Hopeless where that opens the circuit."""
        self._failures += 1
        self._failing.add(key if error.replied else f"{key} {self._failures}")
        self._failed_probes += probe
        if self._failed_probes >= (self._probes if self.proven else min(self._probes, _NEW_PROBES)):
            raise self.opened(error)

    def limited(self, error: Limited) -> None:
        """A request was turned away; raises Hopeless where nothing else happened for too long."""
        if self._limited_since is None:
            self._limited_since = self._clock()
        seconds = self._clock() - self._limited_since
        if seconds > self._patience_s:
            raise Hopeless(
                f"{self._service} has answered 429 to everything for {seconds:.0f} s: {error}; lower oracle.rpm and oracle.tpm, or run again later"
            )

    def alone(self) -> bool:
        """Whether a single request is all that failed since the last answer, and the server replied to it."""
        return len(self._failing) <= 1

    def opened(self, error: Broken) -> Hopeless:
        """What to raise once no more is sent."""
        return Hopeless(f"{self._service} can't be used: {max(self._failures, 1)} requests in a row failed, the last with: {error}")
