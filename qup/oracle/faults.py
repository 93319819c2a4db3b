"""What can go wrong between us and an Oracle, by what is to be done about it."""

from __future__ import annotations

from qup.errors import InputError


class Hopeless(InputError):
    """Every further request would fail in the same way: stop at once."""


class Limited(Exception):
    """The server turned the request away because of its rate limits; nothing was bought."""

    status = "429"

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Broken(Exception):
    """No usable answer came; worth sending again. `doubtful`: it may have been bought all the same."""

    def __init__(self, status: str, message: str, *, doubtful: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.doubtful, self.retry_after = status, doubtful, retry_after

    @property
    def replied(self) -> bool:
        """Whether the server said something, be it an error."""
        return self.status not in ("unreachable", "timeout", "cut")


class Rejected(Exception):
    """The server refused this request as it is; sending it again is useless."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
