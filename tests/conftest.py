"""What tests of several folders share."""

from __future__ import annotations

from pathlib import Path

import pytest

from qup.config.compose import Composer
from tests.helpers.lab import launch
from tests.helpers.wheel import Installed, install


@pytest.fixture(scope="session")
def lab_small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run of experiment=lab_small for all tests: its folder, with `store` and `multirun` in it, and its output. Copy it to change it."""
    folder = tmp_path_factory.mktemp("lab")
    status, out = launch(folder)
    assert status == 0, out
    return folder, out


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """qup from its wheel, in a new environment."""
    return install(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def composer() -> Composer:
    return Composer.over()
