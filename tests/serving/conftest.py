"""A vLLM that is played, and looked at often."""

from __future__ import annotations

from pathlib import Path

import pytest

from qup.serving import server
from tests.helpers import fake_vllm


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(server, "PROBE_S", 0.05)
    monkeypatch.setattr(server, "PROBE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(server, "STOP_S", 0.5)
    return fake_vllm.install(tmp_path / "venv", monkeypatch)
