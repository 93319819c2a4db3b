"""A vLLM that is played."""

from __future__ import annotations

from pathlib import Path

import pytest

from qup.serving import server
from tests.helpers import fake_vllm


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(server, "STOP_S", 0.5)
    return fake_vllm.install(tmp_path / "venv", monkeypatch)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are looked at all the time; on a busy machine a slow one is then taken for dead, so only tests of that ask for it."""
    monkeypatch.setattr(server, "PROBE_S", 0.05)
    monkeypatch.setattr(server, "PROBE_TIMEOUT_S", 0.7)
