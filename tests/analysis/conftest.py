"""A study of the lab, invented once for all tests of the analysis."""

from __future__ import annotations

from pathlib import Path

import pytest

from qup.analysis.report import build
from qup.store import Store
from tests.analysis.world import World, build_study, lab_cells


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> tuple[Path, Store, Path]:
    root = tmp_path_factory.mktemp("lab")
    folder, store = build_study(root, World(lab_cells(), steps=30))
    return folder, store, build(folder, store, root / "report")
