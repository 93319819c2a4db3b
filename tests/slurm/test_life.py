"""Life after submission on a real SLURM: preemption, crashes, restarts; stages are recordings."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from qup.launch.process import NO_STORE
from tests.helpers.overlay import Overlay
from tests.helpers.slurm_cluster import Cluster
from tests.slurm.conftest import SMALL, cancel, grid


def state_of(overlay, kind, study="test"):
    _, out = overlay.qup("status", study, "--json")
    return {stage["stage"]: stage for cell in json.loads(out)["cells"] for stage in cell["stages"]}[kind]


def job_of(overlay, slurm, kind):
    slurm.wait_for(lambda: [entry for entry in overlay.runs() if entry["kind"] == kind], kind)
    return next(entry["job"] for entry in overlay.runs() if entry["kind"] == kind)


def test_usr2_requeues_under_the_same_id_and_the_stage_goes_on(overlay, slurm):
    overlay.order("rollouts", wait=True)
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    job = job_of(overlay, slurm, "rollouts")
    slurm.run("scancel", "--signal=USR2", job)
    slurm.wait_for(lambda: len([entry for entry in overlay.runs() if entry["kind"] == "rollouts"]) == 2, "the second run", 90)
    assert state_of(overlay, "rollouts")["requeues"] == 1
    overlay.go("rollouts")
    assert overlay.qup("wait", "test")[0] == 0
    ids = {entry["job"] for entry in overlay.runs() if entry["kind"] == "rollouts"}
    assert ids == {job}
    assert overlay.runs("stopped")


def test_requeues_are_bounded_and_said(overlay, slurm):
    overlay.order("rollouts", wait=True)
    assert overlay.launch(grid(max_requeues=0)[:1], "slurm")[0] == 0
    job = job_of(overlay, slurm, "rollouts")
    slurm.run("scancel", "--signal=USR2", job)
    assert overlay.qup("wait", "test")[0] == 1
    assert "interrupted too often" in state_of(overlay, "rollouts")["detail"]
    overlay.forget("rollouts")
    assert overlay.qup("retry", "test", "--time", "x2")[0] == 0
    assert overlay.qup("wait", "test")[0] == 0
    assert int(slurm.run("squeue", "-h", "-t", "all", "-o", "%l").count("10:00")) >= 1


@pytest.fixture(scope="module", autouse=True)
def out_of_time(request, slurm, tmp_path_factory):
    """A stage that runs into SLURM's shortest limit, a minute: launched first, so that the minute passes beside other tests."""
    if not any("out_of_time" in item.name for item in request.session.items):
        yield None
        return
    overlay = Overlay(tmp_path_factory.mktemp("out_of_time"))
    overlay.env["SLURM_CONF"] = str(slurm.conf)
    overlay.order("rollouts", wait=True)
    cells = grid(rollouts=replace(SMALL, time="1"), max_requeues=0, warn_s=1)[:1]
    assert overlay.launch(cells, "slurm")[0] == 0
    yield overlay
    cancel(overlay, slurm)


def test_the_queue_outlives_a_controller_restart(overlay, slurm):
    overlay.order("rollouts", wait=True)
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    job_of(overlay, slurm, "rollouts")
    slurm.stop_controller()
    status, out = overlay.qup("status", "test")
    assert status == 0
    assert "could not be asked" in out or "queue" in out
    slurm.start_controller()
    overlay.go("rollouts")
    assert overlay.qup("wait", "test", timeout=300)[0] == 0


def test_the_log_of_a_stage_is_found_by_cell_and_kind(overlay, slurm):
    overlay.order("rollouts", **{"raise": "the sky fell"})
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    assert overlay.qup("wait", "test")[0] == 1
    status, out = overlay.qup("logs", "0", "rollouts")
    assert status == 0, out
    assert "RuntimeError: the sky fell" in out


def test_without_a_controller_nothing_is_lost_and_the_error_says_so(tmp_path):
    overlay = Overlay(tmp_path)
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=x\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nAuthType=auth/none\n")
    overlay.env["SLURM_CONF"] = str(tmp_path / "missing.conf")
    status, out = overlay.launch(grid()[:1], "slurm")
    assert status == 1
    assert "SLURM_CONF" in out and "no such file" in out
    overlay.env["PATH"] = "/nowhere"
    overlay.env["SLURM_CONF"] = str(conf)
    status, out = overlay.launch(grid()[:1], "slurm")
    assert "no sbatch on PATH" in out


@pytest.fixture
def own_cluster():
    root = Path(tempfile.mkdtemp(prefix="qup-slurm-"))
    cluster = Cluster(root, nodes=2, cpus=16, max_array=4)
    cluster.start()
    yield cluster
    cluster.stop()
    shutil.rmtree(root, ignore_errors=True)


def test_a_node_crash_is_survived_and_arrays_stay_below_the_limit(own_cluster, tmp_path):
    overlay = Overlay(tmp_path)
    overlay.env["SLURM_CONF"] = str(own_cluster.conf)
    overlay.order("rollouts", sleep=20)
    assert overlay.launch(grid(), "slurm")[0] == 0
    for line in own_cluster.run("squeue", "-h", "-r", "-o", "%i").split():
        assert int(line.partition("_")[2] or 0) < 4
    job = job_of(overlay, own_cluster, "rollouts")
    node = own_cluster.run("squeue", "-h", "-j", job, "-o", "%N").strip()
    own_cluster.crash_node(node)
    overlay.forget("rollouts")
    own_cluster.wait_for(
        lambda: (
            len([entry for entry in overlay.runs() if entry["kind"] == "rollouts"]) >= 2
            or "NODE_FAIL" in own_cluster.run("squeue", "-h", "-t", "all", "-o", "%T")
        ),
        "SLURM to notice",
        120,
    )
    own_cluster.start_node(node)
    status, _ = overlay.qup("wait", "test", timeout=300)
    if status:
        assert overlay.qup("retry", "test")[0] == 0
        assert overlay.qup("wait", "test", timeout=300)[0] == 0


def test_ctrl_c_of_a_waiting_client_leaves_the_jobs(overlay, slurm):
    overlay.order("rollouts", wait=True)
    process = overlay.popen([replace(one, study=replace(one.study, wait=True)) for one in grid()[:1]], "slurm")
    slurm.wait_for(lambda: overlay.runs(), "the first stage")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "the jobs go on" in out
    overlay.go("rollouts")
    assert overlay.qup("wait", "test")[0] == 0


def test_what_is_missing_above_stored_results_is_not_waited_for(overlay, slurm):
    overlay.order("train", **{"raise": "no"})
    assert overlay.launch(grid()[3:], "slurm")[0] == 0
    assert overlay.qup("wait", "test")[0] == 1
    for key in (overlay.store / "rollouts").iterdir():
        shutil.rmtree(key)
    assert overlay.qup("wait", "test", timeout=120)[0] == 1
    _, out = overlay.qup("status", "test", "--json")
    states = {stage["stage"]: stage["state"] for one in json.loads(out)["cells"] for stage in one["stages"]}
    assert states["train"] == "failed"
    assert states.get("rollouts") in (None, "stored"), states


def test_a_store_that_nodes_cannot_see_is_told_by_the_first_job(overlay, slurm):
    hidden = overlay.store.with_name("moved")
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    cancel(overlay, slurm)
    overlay.store.rename(hidden)
    folder = hidden / "studies" / "test"
    scripts = sorted((folder / "slurm").glob("*/*_submission.sh"))
    assert scripts
    done = subprocess.run(["bash", str(scripts[0])], capture_output=True, text=True, env={**os.environ, "SLURM_JOB_ID": "1"})
    hidden.rename(overlay.store)
    assert done.returncode == NO_STORE
    assert "is not visible" in done.stderr


def test_the_exit_of_a_node_that_lacks_store_or_python_is_said_in_words(overlay, slurm):
    for line, words in (("exit 82", "store"), ("exit 81", "Python")):
        cells = [replace(one, study=replace(one.study, name=words.lower())) for one in grid(problems=replace(SMALL, setup=(line,)))[:1]]
        assert overlay.launch(cells, "slurm")[0] == 0
        assert overlay.qup("wait", words.lower())[0] == 1
        _, out = overlay.qup("status", words.lower(), "--json")
        details = [stage["detail"] for one in json.loads(out)["cells"] for stage in one["stages"] if stage["stage"] == "problems"]
        assert any(words in detail for detail in details), out


def test_a_stage_out_of_time_is_told_and_given_more(out_of_time):
    overlay = out_of_time
    status, _ = overlay.qup("wait", "test", timeout=300)
    assert status == 1
    detail = state_of(overlay, "rollouts")["detail"]
    assert "time" in detail or "interrupted" in detail
    overlay.go("rollouts")
    assert overlay.qup("retry", "test", "--time", "x3")[0] == 0
    assert overlay.qup("wait", "test")[0] == 0
