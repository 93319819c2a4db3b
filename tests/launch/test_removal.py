"""Studies unregistered, and replaced by another grid of the same name; on studies whose stages are recordings."""

import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from qup.config.fingerprint import plain
from qup.config.schema import Study
from qup.launch.changes import SHOWN, grid_changes
from qup.launch.check import faults
from qup.study import Cell
from qup.study import Study as Recorded
from tests.helpers.cells import cell
from tests.helpers.overlay import Overlay

CELL = cell("slm_rft")


@pytest.fixture(scope="module")
def overlay(tmp_path_factory):
    return Overlay(tmp_path_factory.mktemp("removal"))


def of(name, lr=5e-5, **study):
    return replace(CELL, study=Study(name=name, **study), trainer=replace(CELL.trainer, lr=lr))


def launched(overlay, *cells):
    status, out = overlay.launch(list(cells))
    assert status == 0, out
    return overlay.store / "studies" / cells[0].study.name


def registered(*cells):
    return Recorded("test", tuple(Cell("", {}, {}, plain(one)) for one in cells), Path("/store"), Path("/store/studies/test"))


def test_a_removed_study_leaves_nothing_but_its_artifacts_and_these_to_gc(overlay):
    folder, link = launched(overlay, of("gone")), overlay.work / "multirun" / "gone"
    stored = {path.parent for path in overlay.store.glob("*/*/manifest.json")}
    assert link.is_symlink() and len(stored) > 3
    status, out = overlay.qup("rm", "gone")
    assert status == 0, out
    assert "study gone unregistered: 1 cells" in out and str(folder) in out and str(link) in out
    assert f"{len(stored)} artifacts that no other study needs stay" in out
    assert not folder.exists() and not link.is_symlink()
    assert all(path.exists() for path in stored)
    assert overlay.qup("store", "gc")[0] == 0
    assert not any(path.exists() for path in stored)


def test_what_another_study_needs_is_not_counted_as_left(overlay):
    launched(overlay, of("keeps"))
    launched(overlay, of("leaves"))
    status, out = overlay.qup("rm", "leaves")
    assert status == 0 and "stay in" not in out, out


def test_a_study_named_by_its_folder_loses_the_link_where_it_was_launched_too(overlay):
    folder = launched(overlay, of("elsewhere", dir=str(overlay.work / "shown")))
    status, out = overlay.qup("rm", str(folder))
    assert status == 0, out
    assert not (overlay.work / "shown" / "elsewhere").is_symlink()


def test_a_dry_run_is_removed(overlay):
    assert overlay.launch([of("dry", dry_run=True)])[0] == 0
    status, out = overlay.qup("rm", "dry")
    assert status == 0 and "dry run dry removed" in out, out
    assert not (overlay.work / "multirun" / "dry").exists()


def test_of_several_none_is_removed_where_one_cannot_be(overlay):
    folder = launched(overlay, of("first"))
    copy = overlay.work / "copies" / "second"
    shutil.copytree(folder, copy)
    status, out = overlay.qup("rm", "first", str(copy))
    assert status == 1 and "registered in no store" in out, out
    assert (folder / "study.json").exists() and (copy / "study.json").exists()


def test_another_grid_takes_the_name_under_replace_and_of_the_old_one_only_artifacts_are_left(overlay):
    folder = launched(overlay, of("name", lr=0.75))
    (old,) = folder.glob("logs/train-*.log")
    trained = len(list(overlay.store.glob("train/*/manifest.json")))
    status, out = overlay.launch([of("name", lr=0.5)])
    assert status == 1
    assert "another grid of 1 cells" in out and "study.replace=true" in out
    assert "  trainer.lr: 0.75 → 0.5\n" in out
    status, out = overlay.launch([of("name", lr=0.5, replace=True)])
    assert status == 0, out
    assert "the 1 cells that were study name are replaced" in out
    assert [one.get("trainer.lr") for one in Recorded.load(folder).cells] == [0.5]
    assert not old.exists() and (folder / "report" / "cells.csv").exists()
    assert len(list(overlay.store.glob("train/*/manifest.json"))) == trained + 1
    status, out = overlay.launch([of("name", lr=0.5, replace=True)])
    assert status == 0 and "replaced" not in out, out


def test_a_study_that_runs_is_neither_removed_nor_replaced(overlay):
    overlay.order("train", wait=True)
    (overlay.control / "runs.jsonl").unlink(missing_ok=True)
    process = overlay.popen([of("busy", lr=0.25)], "local")
    overlay.await_run("train")
    alive = f"nothing of it runs or waits: launch on .* \\(process {process.pid}\\)"
    tries = (lambda: overlay.qup("rm", "busy"), lambda: overlay.launch([of("busy", lr=0.125, replace=True)], timeout=30))
    for attempt in tries:
        status, out = attempt()
        assert status == 1
        assert re.search(alive, out), out
    status, out = overlay.launch([of("busy", lr=0.125, replace=True, dry_run=True)])
    assert status == 0 and re.search(f"a launch would be refused: .*{alive}", out), out
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    overlay.forget("train")
    status, out = overlay.qup("rm", "busy")
    assert status == 0, out


def test_settings_of_cells_that_are_in_both_grids_are_not_told():
    old = [of("test"), of("test", lr=0.5)]
    assert grid_changes(registered(*old), [old[0]]) == ["removed: lab_foreign/slm_rft/sft/lr=0.5"]


def test_a_setting_that_many_cells_share_is_told_once():
    old = [cell("slm_rft"), cell("oracle_refined")]
    new = [replace(one, trainer=replace(one.trainer, lr=0.5)) for one in old]
    assert grid_changes(registered(*old), new) == ["trainer.lr: 5e-05 → 0.5 (in 2 cells)"]


def test_of_many_cells_and_settings_few_are_told():
    old = [of("test", lr=0.01 * number) for number in range(1, SHOWN + 4)]
    (added, removed) = grid_changes(registered(*old), [cell("oracle_refined")])
    assert added.startswith("added: lab_foreign/oracle_refined/sft") and removed.endswith(", … and 3 more")
    trainer = replace(CELL.trainer, lr=1.0, epochs=9, batch_size=3, seed=4, warmup_ratio=0.4, weight_decay=0.5, clip=0.5)
    lines = grid_changes(registered(CELL), [replace(CELL, trainer=trainer)])
    assert len(lines) == SHOWN + 1 and lines[-1] == "… and 1 more settings"


def test_replace_and_extend_at_once_are_refused():
    both = of("test", replace=True, extend=True)
    assert [fault.key for fault in faults(both)] == ["study.replace"]
