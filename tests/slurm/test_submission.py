"""Submission to a real SLURM; stages are recordings."""

import json
import re
import time
from dataclasses import replace

import pytest

from qup.config.schema import Resources, Study
from tests.slurm.conftest import SMALL, grid, queued


def kinds(overlay, event="ended"):
    counts = {}
    for entry in overlay.runs(event):
        counts[entry["kind"]] = counts.get(entry["kind"], 0) + 1
    return counts


def test_the_client_returns_and_the_graph_runs_each_stage_once(overlay, slurm):
    status, out = overlay.launch(grid(), "slurm")
    assert status == 0, out
    assert "this shell is free" in out
    status, out = overlay.qup("wait", "test")
    assert status == 0, out
    counts = kinds(overlay)
    assert counts["problems"] == counts["student"] == counts["rollouts"] == counts["aligned"] == 1
    assert counts["train"] == 4
    assert counts["evaluate"] == 5
    slurm.wait_for(lambda: (overlay.work / "multirun" / "test" / "report" / "cells.csv").exists(), "the report job")
    before = len(overlay.runs())
    status, out = overlay.launch(grid(), "slurm")
    assert "nothing was submitted" in out
    assert len(overlay.runs()) == before


def test_independent_stages_go_as_arrays_and_children_follow_index_by_index(overlay, slurm):
    overlay.order("problems", wait=True)
    status, out = overlay.launch(grid(), "slurm")
    assert status == 0, out
    jobs = slurm.run("squeue", "-h", "-o", "%i|%E|%k")
    calls = {line.split("|")[2].split()[3]: line for line in jobs.splitlines()}
    overlay.go("problems")
    assert any(name.startswith("train[") for name in calls), jobs
    assert any(name.startswith("evaluate[") for name in calls), jobs
    dependencies = slurm.run("scontrol", "show", "job", "-d")
    assert "aftercorr" in dependencies
    assert overlay.qup("wait", "test")[0] == 0


def test_weights_that_are_not_kept_go_with_their_evaluation(overlay, slurm):
    overlay.order("train", weights=True)
    frugal = [replace(one, store=replace(one.store, keep_weights="none")) for one in grid()]
    assert overlay.launch(frugal, "slurm")[0] == 0
    status, out = overlay.qup("wait", "test")
    assert status == 0, out
    logs = [path.read_text() for path in (overlay.work / "multirun" / "test" / "logs").glob("evaluate-*.log")]
    assert sum("its weights are evaluated and were let go" in log for log in logs) == 4
    assert not list((overlay.store / "train").glob("*/model"))


def test_editing_code_after_submission_changes_nothing(overlay, slurm):
    overlay.order("problems", wait=True)
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    for path in (overlay.root / "qup" / "stages").glob("*.py"):
        path.write_text("raise RuntimeError('edited')\n")
    overlay.go("problems")
    status, out = overlay.qup("wait", "test")
    assert status == 0, out


def test_a_stage_that_raises_is_failed_and_its_dependants_are_cancelled_and_retry_finishes(overlay, slurm):
    overlay.order("rollouts", **{"raise": "the sky fell"})
    assert overlay.launch(grid()[::4], "slurm")[0] == 0
    status, out = overlay.qup("wait", "test")
    assert status == 1
    status, out = overlay.qup("status", "test", "--json")
    seen = json.loads(out)
    by_kind = {stage["stage"]: stage for cell in seen["cells"] for stage in cell["stages"]}
    assert by_kind["rollouts"]["state"] == "failed"
    assert "the sky fell" in by_kind["rollouts"]["detail"]
    assert by_kind["train"]["state"] == "cancelled"
    assert "depend" in by_kind["train"]["detail"]
    assert kinds(overlay)["evaluate"] == 1, "the base cell runs on"
    overlay.forget("rollouts")
    status, out = overlay.qup("retry", "test")
    assert status == 0, out
    status, out = overlay.qup("wait", "test")
    assert status == 0, out
    assert kinds(overlay)["student"] == 1


def test_a_retry_counts_what_it_submitted_and_not_what_other_cells_have_in_the_queue(overlay, slurm):
    overlay.order("rollouts", **{"raise": "the sky fell"})
    overlay.order("responses", wait=True)
    assert overlay.launch(grid()[::4], "slurm")[0] == 0
    slurm.wait_for(lambda: len(queued(overlay, slurm)) <= 3, "nothing but the base cell's responses, evaluation and the report")
    overlay.await_run("responses")
    overlay.forget("rollouts")
    ledger = overlay.store / "studies" / "test" / "slurm" / "ledger.jsonl"
    before = len(ledger.read_text().splitlines())
    status, out = overlay.qup("retry", "test")
    assert status == 0, out
    told = re.search(r"resubmitted (\d+) stages that had not succeeded and (\d+) that waited", out)
    events = map(json.loads, ledger.read_text().splitlines()[before:])
    again = {tuple(unit[:2]) for event in events for unit in event.get("units", ())}
    assert told and sum(map(int, told.groups())) == len(again) > 3, out
    overlay.go("responses")
    assert overlay.qup("wait", "test")[0] == 0


def test_a_killed_stage_is_told_and_retried(overlay, slurm):
    overlay.order("aligned", kill=True)
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    assert overlay.qup("wait", "test")[0] == 1
    _status, out = overlay.qup("status", "test")
    assert "SIGKILL" in out, out
    overlay.forget("aligned")
    assert overlay.qup("retry", "test")[0] == 0
    assert overlay.qup("wait", "test")[0] == 0


def test_a_job_cancelled_by_hand_is_told_and_retried(overlay, slurm):
    overlay.order("rollouts", wait=True)
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    slurm.wait_for(lambda: [entry for entry in overlay.runs() if entry["kind"] == "rollouts"], "rollouts")
    job = next(entry["job"] for entry in overlay.runs() if entry["kind"] == "rollouts")
    slurm.run("scancel", job)
    assert overlay.qup("wait", "test")[0] == 1
    _, out = overlay.qup("status", "test", "--json")
    by_kind = {stage["stage"]: stage for cell in json.loads(out)["cells"] for stage in cell["stages"]}
    assert by_kind["rollouts"]["state"] == "cancelled"
    overlay.forget("rollouts")
    assert overlay.qup("retry", "test")[0] == 0
    assert overlay.qup("wait", "test")[0] == 0


def test_two_clients_at_once_queue_shared_stages_once(overlay, slurm):
    overlay.order("problems", wait=True)
    other = [replace(one, study=Study(name="other")) for one in grid()[:2]]
    first, second = overlay.popen(grid()[:2], "slurm"), overlay.popen(other, "slurm")
    out_first, _ = first.communicate(timeout=120)
    out_second, _ = second.communicate(timeout=120)
    assert first.returncode == second.returncode == 0, out_first + out_second
    overlay.go("problems")
    for study in ("test", "other"):
        status, out = overlay.qup("wait", study)
        assert status == 0, out + overlay.qup("status", study)[1] + out_first + out_second
    assert set(kinds(overlay, "began").values()) <= {1, 2}
    assert kinds(overlay, "began")["student"] == 1
    assert kinds(overlay, "began")["train"] == 2


def test_a_study_whose_stages_another_queued_is_waited_for(overlay, slurm):
    first = ("problems", "student", "reward_model")
    for kind in first:
        overlay.order(kind, wait=True)
    assert overlay.launch(grid()[:1], "slurm")[0] == 0
    status, out = overlay.launch([replace(one, study=Study(name="other")) for one in grid()[:1]], "slurm")
    assert status == 0 and "all queued already" in out, out
    _, out = overlay.qup("status", "other", "--json")
    told = {stage["stage"]: stage for one in json.loads(out)["cells"] for stage in one["stages"]}
    assert {stage["state"] for stage in told.values()} <= {"queued", "running"}, told
    assert told["train"]["detail"] == "by study test"
    for kind in first:
        overlay.go(kind)
    status, out = overlay.qup("wait", "other")
    assert status == 0, out


def test_cancel_takes_a_studys_jobs_and_leaves_what_another_needs(overlay, slurm):
    overlay.order("student", wait=True)
    assert overlay.launch(grid(), "slurm")[0] == 0
    other = [replace(one, study=Study(name="other")) for one in grid()[:1]]
    assert overlay.launch(other, "slurm")[0] == 0
    status, out = overlay.qup("cancel", "test")
    assert status == 0, out
    assert "are left" in out
    _, out = overlay.qup("status", "test", "--json")
    states = {stage["stage"]: stage["state"] for one in json.loads(out)["cells"] for stage in one["stages"]}
    assert states["train"] == states["evaluate"] == "cancelled", states
    told = {stage["detail"] for one in json.loads(out)["cells"] for stage in one["stages"] if stage["state"] == "cancelled"}
    assert told == {"by qup cancel"}, "also of those that waited for another stage"
    overlay.go("student")
    status, out = overlay.qup("wait", "other")
    assert status == 0, out
    assert kinds(overlay)["train"] == 1


def test_a_client_killed_in_the_middle_leaves_held_jobs_that_the_next_launch_clears(overlay, slurm):
    overlay.wrap("sbatch", "sleep 0.5")
    process = overlay.popen(grid()[:1], "slurm")
    slurm.wait_for(lambda: len(queued(overlay, slurm)) >= 3, "some jobs")
    process.kill()
    process.communicate()
    overlay.env.pop("PATH")
    time.sleep(0.5)
    reasons = set(slurm.run("squeue", "-h", "-r", "-o", "%r").split())
    assert "JobHeldUser" in reasons, reasons
    status, out = overlay.launch(grid()[:1], "slurm")
    assert status == 0, out
    assert "held jobs of a client that died were cancelled" in out
    assert overlay.qup("wait", "test")[0] == 0
    assert kinds(overlay)["train"] == 1


@pytest.mark.parametrize(("what", "changes"), [("report", {}), ("driver", {"max_jobs": 6})])
def test_a_second_launch_leaves_the_live_report_and_driver_alone(overlay, slurm, what, changes):
    overlay.order("problems", wait=True)
    assert overlay.launch(grid(**changes)[:1], "slurm")[0] == 0

    def jobs():
        lines = (line.partition("|") for line in slurm.run("squeue", "-h", "-o", "%i|%k").splitlines())
        return {job for job, _, comment in lines if comment.endswith(f" {what}")} & set(queued(overlay, slurm))

    first = jobs()
    assert len(first) == 1
    status, out = overlay.launch(grid(**changes)[:1], "slurm")
    assert status == 0, out
    assert "were cancelled" not in out
    assert first < jobs()
    events = [
        json.loads(line)["event"] for line in (overlay.work / "multirun" / "test" / "slurm" / "ledger.jsonl").read_text().splitlines()
    ]
    assert "cancelled" not in events
    overlay.go("problems")
    status, out = overlay.qup("wait", "test", timeout=300)
    assert status == 0, out
    assert kinds(overlay)["train"] == 1


def test_a_refused_sbatch_cancels_those_before_it(overlay, slurm):
    bad = replace(SMALL, extra={"begin": "not-a-time"})
    status, out = overlay.launch(grid(evaluate=bad), "slurm")
    assert status == 1
    assert "sbatch refused" in out
    assert not queued(overlay, slurm)


def test_what_the_partition_cannot_give_is_refused_before_submission(overlay, slurm):
    asked = replace(SMALL, gpus="v100:4", mem="900G", partition="nowhere")
    status, out = overlay.launch(grid(train=asked, evaluate=replace(SMALL, gpus="64", time="3-00:00:00", cpus=99)), "slurm")
    assert status == 1
    assert "cluster.train.partition='nowhere'" in out
    assert "cluster.evaluate.gpus='64'" in out
    assert "cluster.evaluate.cpus=99" in out
    assert not queued(overlay, slurm)


def test_gpus_are_asked_for_by_type(overlay, slurm):
    overlay.order("problems", wait=True)
    assert overlay.launch(grid(train=replace(SMALL, gpus="a100:1"))[:1], "slurm")[0] == 0
    assert "gpu:a100:1" in slurm.run("squeue", "-h", "-o", "%b %j")
    overlay.go("problems")
    assert overlay.qup("wait", "test")[0] == 0


def test_more_stages_than_max_jobs_are_submitted_by_a_driver(overlay, slurm):
    status, out = overlay.launch(grid(max_jobs=6)[:1], "slurm")
    assert status == 0, out
    assert "driver job" in out
    status, out = overlay.qup("wait", "test", timeout=300)
    assert status == 0, out
    assert kinds(overlay)["train"] == 1


def test_where_nodes_may_not_submit_waiting_is_demanded(overlay, slurm):
    status, out = overlay.launch(grid(max_jobs=6, nodes_submit=False)[:1], "slurm")
    assert status == 1
    assert "study.wait=true" in out
    waiting = [replace(one, study=replace(one.study, wait=True)) for one in grid(max_jobs=6, nodes_submit=False)[:1]]
    status, out = overlay.launch(waiting, "slurm", timeout=300)
    assert status == 0, out


def test_oracle_stages_may_run_on_the_launching_machine(overlay, slurm):
    status, out = overlay.launch(grid(oracle=replace(SMALL, where="here"))[2:3], "slurm")
    assert status == 0, out
    status, out = overlay.qup("wait", "test", timeout=300)
    assert status == 0, out
    jobs = {entry["kind"]: entry["job"] for entry in overlay.runs("ended") if entry["kind"] == "candidates"}
    assert "" in {entry["job"] for entry in overlay.runs("ended") if entry["kind"] == "candidates"}, jobs


def test_wide_stages_run_as_an_array_with_one_merge(overlay, slurm):
    status, out = overlay.launch(grid(rollouts=replace(SMALL, workers=3))[:1], "slurm")
    assert status == 0, out
    assert overlay.qup("wait", "test")[0] == 0
    assert kinds(overlay)["rollouts"] == 1
    comments = slurm.run("squeue", "-h", "-t", "all", "-o", "%k")
    assert "rollouts[3]" in comments


def test_a_submission_waits_with_the_display_when_asked(overlay, slurm):
    waiting = [replace(one, study=replace(one.study, wait=True)) for one in grid()[:1]]
    status, out = overlay.launch(waiting, "slurm")
    assert status == 0, out
    assert "1 rows" in out


def test_a_bad_time_string_names_the_field(overlay, slurm):
    status, out = overlay.launch(grid(train=Resources(mem="50M", time="soon")), "slurm")
    assert status == 1
    assert "cluster.train.time" in out and "soon" in out
