"""A loopback server in a process of its own, one for all tests here; each test tells it how to behave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.oracle_server import serving, tell


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def behaving(server: str) -> Callable[..., str]:
    """behaving(cut=0.1, …) gives the URL of a server that does so, with empty books."""

    def behave(**behaviour: Any) -> str:
        tell(server, **behaviour)
        return server

    return behave
