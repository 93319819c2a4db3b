"""Looking after a store, and explaining what is stale; on studies whose stages are recordings."""

import json
from dataclasses import replace

import pytest

from qup.config.schema import Study
from qup.errors import InputError
from qup.launch.commands.store import find_artifact
from qup.store import Store
from tests.helpers.cells import cell
from tests.helpers.overlay import Overlay

CELL = cell("slm_rft")


@pytest.fixture(scope="module")
def overlay(tmp_path_factory):
    made = Overlay(tmp_path_factory.mktemp("storekeeping"))
    status, out = made.launch([CELL])
    assert status == 0, out
    return made


def another(name, dry=False, **trainer):
    return replace(CELL, study=Study(name=name, dry_run=dry), trainer=replace(CELL.trainer, **trainer))


def test_a_dry_run_can_be_explained_before_anything_is_spent(overlay):
    status, out = overlay.launch([another("planned", dry=True, lr=0.5)])
    assert status == 0, out
    status, out = overlay.qup("explain", "lab_foreign/slm_rft/sft", "--study", "planned")
    assert status == 0, out
    assert out.count("missing ") == 3, out
    assert "trainer.lr: 5e-05 → 0.5" in out
    assert "input train: " in out
    assert not (overlay.store / "studies" / "planned").exists()


def test_a_dry_run_does_not_make_a_cells_name_ambiguous(overlay):
    overlay.launch([another("planned_too", dry=True, lr=0.25)])
    status, out = overlay.qup("explain", "lab_foreign/slm_rft/sft")
    assert status == 0, out
    assert " in test (" in out and "missing" not in out


@pytest.mark.parametrize("extend", [False, True])
def test_a_dry_run_of_a_registered_study_leaves_its_record_and_plan_alone(overlay, extend):
    folder = overlay.store / "studies" / "test"
    before = [(folder / name).read_bytes() for name in ("study.json", "plan.json")]
    dry = replace(CELL, study=Study(name="test", dry_run=True, extend=extend), trainer=replace(CELL.trainer, lr=0.125 if extend else 5e-5))
    status, out = overlay.launch([dry])
    assert status == 0, out
    assert [(folder / name).read_bytes() for name in ("study.json", "plan.json")] == before
    path = overlay.work / "multirun" / "test" / "plan.dry.json"
    assert f"plan written to {path.relative_to(overlay.work)}" in out
    assert len(json.loads(path.read_text())["cells"]) == 1 + extend


def test_a_launch_takes_the_place_of_its_dry_run(overlay):
    assert overlay.launch([another("later", dry=True)])[0] == 0
    assert (overlay.work / "multirun" / "later" / "study.json").exists()
    status, out = overlay.launch([another("later")])
    assert status == 0, out
    assert (overlay.work / "multirun" / "later").is_symlink()


def test_gc_removes_what_no_study_needs_and_touches_nothing_else(overlay):
    store = Store(overlay.store)
    kept = {artifact.path for artifact in store.artifacts()}
    key = "0123456789abcdef0123"
    for name in (key, f"{key}.work", f".{key}.out.ab"):
        (overlay.store / "train" / name).mkdir()
    claimed = overlay.store / "train" / "abcdef0123456789abcd.work"
    claimed.mkdir()
    lease = store.acquire("train", "abcdef0123456789abcd", {}, lambda: False)
    foreign = [overlay.store / "photos" / "2026", overlay.store / "train" / "photos", overlay.store / "corrupt" / "photos"]
    for folder in foreign:
        folder.mkdir(parents=True)
    status, out = overlay.qup("store", "gc", "--dry-run")
    assert status == 0 and "3 would go" in out, out
    assert (overlay.store / "train" / key).exists()
    status, out = overlay.qup("store", "gc")
    assert status == 0 and "3 gone" in out, out
    assert not (overlay.store / "train" / key).exists()
    assert claimed.exists()
    assert all(folder.exists() for folder in foreign)
    assert all(path.exists() for path in kept)
    lease.release()


def test_a_store_that_is_not_there_is_an_error(overlay):
    for action in ("ls", "verify", "gc"):
        status, out = overlay.qup("store", "--store", "stoer", action)
        assert status == 1, action
        assert "--store=stoer: no such directory" in out


def test_a_damaged_artifact_is_named(overlay):
    (path,) = (overlay.store / "solvable").glob("*/result.txt")
    whole = path.read_text()
    path.write_text(whole.upper())
    status, out = overlay.qup("store", "verify")
    path.write_text(whole)
    assert status == 1
    assert f"artifact solvable/{path.parent.name} is corrupt: checksum of result.txt differs" in out
    assert overlay.qup("store", "verify")[0] == 0


def test_an_artifact_is_found_by_the_beginning_of_its_key(overlay):
    store = Store(overlay.store)
    (found,) = [artifact for artifact in store.artifacts() if artifact.stage == "rollouts"]
    assert find_artifact(store, f"rollouts/{found.key[:6]}").key == found.key
    with pytest.raises(InputError, match=r"no such artifact .* stages there: .*rollouts"):
        find_artifact(store, "rolouts/x")
