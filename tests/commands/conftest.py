from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.entry import FakeStudy


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeStudy:
    fake = FakeStudy()
    module = ModuleType("qup.launch.launch")
    module.launch = fake.launch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "qup.launch.launch", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return fake
