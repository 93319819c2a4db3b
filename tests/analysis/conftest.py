"""A study of the lab, invented once for all tests of the analysis."""

from __future__ import annotations

from pathlib import Path

import pytest

from qup.analysis.report import build
from qup.store import Store
from qup.study import Study
from tests.analysis.world import World, build_study, lab_cells
from tests.helpers.shared import made_once


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store, Path]:
    """The study's folder, its store, and its report's page."""

    def make(root: Path) -> None:
        folder, store = build_study(root, World(lab_cells(), steps=30))
        build(folder, store, root / "report")

    root = made_once(tmp_path_factory, "analysed", make)
    study = Study.load(root / "store" / "studies" / "test")
    return study.folder, study.open_store(), root / "report" / "report.html"
