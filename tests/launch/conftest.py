import pytest

from tests.helpers.overlay import Overlay


@pytest.fixture
def overlay(tmp_path):
    return Overlay(tmp_path)
