"""What tests of several folders share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from qup.config.compose import Composer
from tests.helpers.lab import launch
from tests.helpers.shared import made_once
from tests.helpers.wheel import Installed, install

# Hundreds of processes are started here: where the environment forbids it to keep byte code, each would compile qup anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

LONG = (
    "tests/end_to_end/test_lab_small.py",
    "tests/slurm/test_submission.py",
    "tests/slurm/test_life.py",
    "tests/slurm/test_real.py",
    "tests/test_docs.py",
    "tests/slurm",
    "tests/end_to_end",
    "tests/launch/test_local.py",
    "tests/rehearsal",
    "tests/training/test_faults.py",
    "tests/training/test_checkpoint.py",
    "tests/launch",
    "tests/training",
)
"""What takes longest, in that order: it starts first, so that no process is left alone with it at the end. The first makes `lab_small`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (`make test`) a file stays together."""

    def place(item: pytest.Item) -> str:
        return item.location[0].replace("\\", "/")

    for item in items:
        item.add_marker(pytest.mark.xdist_group(place(item)))
    items.sort(key=lambda item: next((number for number, part in enumerate(LONG) if place(item).startswith(part)), len(LONG)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """pytest-xdist writes the group behind an item's name; where it can't, every process would start a cluster of its own."""
    grouped = getattr(session.config.option, "loadgroup", False)
    if grouped and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError(
            "the tests are not grouped: this pytest-xdist does not know this pytest; see pyproject.toml for those tried"
        )


@pytest.fixture(scope="session")
def lab_small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run of experiment=lab_small for all tests of all processes: its folder, with `store` and `multirun` in it, and its output.

    Copy it to change it, or to run anything there.
    """

    def run(folder: Path) -> None:
        (folder / "lab").mkdir()
        status, out = launch(folder / "lab")
        assert status == 0, out
        (folder / "said.txt").write_text(out, encoding="utf-8")

    made = made_once(tmp_path_factory, "lab_small", run)
    return made / "lab", (made / "said.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """qup from its wheel, in a new environment."""
    made = made_once(tmp_path_factory, "wheel", install)
    (wheel,) = made.glob("*.whl")
    return Installed(wheel, made / "environment")


@pytest.fixture(scope="session")
def composer() -> Composer:
    return Composer.over()
