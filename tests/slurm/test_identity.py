"""A study is known by its store and its name: on one cluster, another store's study of the same name is somebody else's."""

import re
import time
from dataclasses import replace

from qup.study import Study
from tests.helpers.overlay import Overlay
from tests.slurm.conftest import grid, queued


def test_a_study_of_the_same_name_in_another_store_is_left_alone(overlay, slurm, tmp_path):
    overlay.order("problems", wait=True)
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    overlay.await_run("problems")

    other = Overlay(tmp_path / "other")
    other.env |= overlay.env
    other.order("problems", wait=True)
    status, out = other.launch(grid()[:1], "slurm")
    assert status == 0, out
    assert "were cancelled" not in out
    status, out = other.qup("cancel", "test")
    assert status == 0, out
    mine = f"qup {Study.load(overlay.store / 'studies' / 'test').identity} "
    assert not [line for line in slurm.run("squeue", "-h", "-t", "cancelled", "-o", "%k").splitlines() if line.startswith(mine)]
    assert [line for line in slurm.run("squeue", "-h", "-o", "%k").splitlines() if line.startswith(mine)]

    overlay.go("problems")
    status, out = overlay.qup("wait", "test")
    assert status == 0, out


def test_a_running_job_of_a_submission_that_nobody_wrote_down_as_released_is_no_leftover(overlay, slurm):
    overlay.order("problems", wait=True)
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    overlay.await_run("problems")
    ledger = overlay.store / "studies" / "test" / "slurm" / "ledger.jsonl"
    ledger.write_text("".join(line for line in ledger.read_text().splitlines(keepends=True) if "released" not in line))
    status, out = overlay.launch(grid()[:1], "slurm")
    assert status == 0, out
    assert "were cancelled" not in out
    overlay.go("problems")
    assert overlay.qup("wait", "test")[0] == 0
    assert len([entry for entry in overlay.runs() if entry["kind"] == "problems"]) == 1


def test_a_study_with_jobs_in_the_queue_is_neither_removed_nor_replaced(overlay, slurm):
    overlay.order("problems", wait=True)
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    overlay.await_run("problems")
    (other,) = [replace(one, trainer=replace(one.trainer, lr=0.5), study=replace(one.study, replace=True)) for one in grid()[:1]]
    for status, out in (overlay.qup("rm", "test"), overlay.launch([other], "slurm")):
        assert status == 1, out
        assert re.search(r"only once nothing of it runs or waits: .*job \d+ \(running\)", out), out
        assert "qup cancel test" in out
    assert overlay.qup("cancel", "test")[0] == 0
    while queued(overlay, slurm):
        time.sleep(0.2)
    status, out = overlay.qup("rm", "test")
    assert status == 0, out
    assert not (overlay.store / "studies" / "test").exists()
