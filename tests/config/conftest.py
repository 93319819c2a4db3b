from __future__ import annotations

import pytest

from qup.config.compose import Composer


@pytest.fixture(scope="session")
def composer() -> Composer:
    return Composer.over()
