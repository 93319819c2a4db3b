"""What gc takes while somebody launches."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from qup.launch.commands import store as commands
from qup.launch.plan import make_plan
from qup.launch.weights import lost
from qup.pipeline.graph import Ref
from qup.store import Store
from tests.helpers.cells import cell
from tests.helpers.overlay import Overlay

KEY = "0123456789abcdef0123"


@pytest.mark.parametrize("needs", [True, False])
def test_what_a_study_registered_meanwhile_needs_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: bool) -> None:
    store = Store(tmp_path)
    artifact = tmp_path / "problems" / KEY
    artifact.mkdir(parents=True)
    record = tmp_path / "studies" / "new" / "study.json"

    def needed(_: Store) -> set[Ref]:
        if not record.exists():
            record.parent.mkdir(parents=True)
            record.write_text("{}", encoding="utf-8")
            return set()
        return {Ref("problems", KEY)} if needs else set()

    monkeypatch.setattr(commands, "needed_refs", needed)
    assert commands.collect_garbage(store, Console(quiet=True), dry_run=False) == 0
    assert artifact.exists() is needs


def test_a_launch_sees_that_a_stored_result_went_after_it_was_planned(tmp_path: Path) -> None:
    overlay = Overlay(tmp_path)
    assert overlay.launch([cell()])[0] == 0
    one = cell()
    stored = overlay.store
    plan = make_plan([type(one)(**{**vars(one), "store": type(one.store)(dir=str(stored))})], tmp_path / "study")
    assert plan.stored and not lost(plan)
    ref = next(iter(plan.stored))
    shutil.rmtree(plan.store.path(*ref))
    assert lost(plan)
