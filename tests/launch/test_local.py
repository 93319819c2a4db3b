"""The local launcher on real processes; stages are recordings."""

import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

from qup.config.schema import Study
from qup.launch.local.scheduler import _status_in_words
from qup.study import Study as Recorded
from tests.helpers.cells import GRID, cell


def children_of(overlay):
    mark = f"QUP_TEST_CONTROL={overlay.control}".encode()
    found = []
    for entry in filter(lambda entry: entry.name.isdigit(), Path("/proc").iterdir()):
        try:
            if mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_grid_runs_each_shared_stage_once_and_a_second_launch_nothing(overlay):
    status, out = overlay.launch(GRID)
    assert status == 0, out
    counts = overlay.counts()
    assert counts["problems"] == counts["rollouts"] == counts["solvable"] == counts["aligned"] == 1
    assert counts["train"] == 4
    assert counts["evaluate"] == 5
    assert (overlay.work / "multirun" / "test" / "report" / "cells.csv").read_text().count("\n") == 5
    (log, *_) = (overlay.work / "store" / "studies" / "test" / "logs").glob("train-*.log")
    assert "INFO n 1, total 1, " in log.read_text()
    before = len(overlay.runs())
    status, out = overlay.launch(GRID)
    assert status == 0
    assert "nothing was computed" in out
    assert len(overlay.runs()) == before


def test_a_failing_stage_stops_only_what_depends_on_it(overlay):
    overlay.order("rollouts", **{"raise": "the sky fell"})
    status, out = overlay.launch(GRID)
    assert status == 1
    assert "RuntimeError: the sky fell" in out
    assert "logs/rollouts-" in out
    counts = overlay.counts("ended")
    assert counts["evaluate"] == 1
    assert "train" not in counts
    overlay.forget("rollouts")
    status, out = overlay.launch(GRID)
    assert status == 0, out
    assert overlay.counts("ended")["student"] == 1


def test_ctrl_c_stops_the_children_and_the_next_run_goes_on(overlay):
    overlay.order("student", sleep=60)
    process = overlay.popen(GRID, "local")
    overlay.await_run("student")
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == 130, out
    assert overlay.runs("stopped")
    assert not children_of(overlay)
    overlay.order("student", sleep=1)
    status, out = overlay.launch(GRID)
    assert status == 0, out


def test_kill_minus_nine_of_the_launcher_leaves_nothing_running_and_loses_nothing(overlay):
    overlay.order("rollouts", sleep=60)
    process = overlay.popen(GRID, "local")
    overlay.await_run("rollouts")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while children_of(overlay):
        assert time.monotonic() < deadline, "children outlived the launcher"
        time.sleep(0.1)
    overlay.forget("rollouts")
    status, out = overlay.launch(GRID)
    assert status == 0, out
    assert overlay.counts("ended")["student"] == 1


def test_a_launcher_whose_helper_is_killed_says_so_and_the_next_run_goes_on(overlay):
    overlay.order("rollouts", sleep=60)
    process = overlay.popen(GRID, "local")
    overlay.await_run("rollouts")
    (helper,) = [
        pid for pid in children_of(overlay) if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(process.pid)
    ]
    os.kill(helper, signal.SIGKILL)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ended unexpectedly" in out and "zygote.log" in out
    assert "Traceback" not in out
    overlay.forget("rollouts")
    status, out = overlay.launch(GRID)
    assert status == 0, out
    assert overlay.counts("ended")["student"] == 1


def test_a_killed_stage_is_told_from_a_failing_one(overlay):
    overlay.order("aligned", kill=True)
    status, out = overlay.launch(GRID)
    assert status == 1
    assert "killed by SIGKILL" in out


def test_two_launches_at_once_compute_shared_stages_once(overlay):
    overlay.order("student", sleep=2)
    other = [replace(one, study=Study(name="other")) for one in GRID[:2]]
    first = overlay.popen(GRID, "local")
    second = overlay.popen(other, "local")
    out_first, _ = first.communicate(timeout=120)
    out_second, _ = second.communicate(timeout=120)
    assert first.returncode == 0, out_first
    assert second.returncode == 0, out_second
    ended = overlay.counts("ended")
    assert ended["student"] == ended["rollouts"] == ended["solvable"] == 1
    assert (overlay.work / "multirun" / "other" / "report" / "cells.csv").exists()


def test_another_grid_under_a_used_name_is_refused_unless_extended(overlay):
    assert overlay.launch(GRID[:1])[0] == 0
    status, out = overlay.launch(GRID[2:3])
    assert status == 1
    assert "another grid" in out and "study.extend=true" in out and "study.replace=true" in out
    assert "added: lab_foreign/oracle_refined/sft" in out and "removed: lab_foreign/slm_rft/sft" in out
    extended = [replace(one, study=replace(one.study, extend=True)) for one in GRID[2:3]]
    status, out = overlay.launch(extended)
    assert status == 0, out
    record = json.loads((overlay.work / "multirun" / "test" / "study.json").read_text())
    assert len(record["cells"]) == 2


def test_the_budget_is_refused_before_anything_runs(overlay):
    def priced(one):
        oracle = replace(one.oracle, usd_per_million_input=1e9)
        return replace(one, oracle=oracle, study=replace(one.study, max_oracle_usd=1.0))

    status, out = overlay.launch([priced(one) for one in GRID])
    assert status == 1
    assert "study.max_oracle_usd=1.0" in out
    assert not overlay.runs()


def test_stages_run_the_code_that_planned_them_wherever_the_command_was_given(overlay):
    """The installed package is another copy; nothing but launch.py's place says which is meant."""
    elsewhere = overlay.environment()
    del elsewhere["PYTHONPATH"], elsewhere["PYTHONSAFEPATH"]
    overlay.environment = lambda: elsewhere
    status, out = overlay.launch([cell("base")])
    assert status == 0, out
    assert overlay.runs("ended"), "the recordings are in the copy alone"


def test_a_stage_that_could_not_write_why_it_failed_is_told_from_others_by_the_full_disk(tmp_path, monkeypatch):
    assert _status_in_words(1, tmp_path, tmp_path / "log") == "ended with status 1; see its log"
    monkeypatch.setattr("qup.launch.local.scheduler.shutil.disk_usage", lambda path: type("usage", (), {"free": 0}))
    assert f"the disk of {tmp_path} is full" in _status_in_words(1, tmp_path, tmp_path / "log")
    assert "killed by SIGKILL" in _status_in_words(-9, tmp_path, tmp_path / "log")


def test_weights_that_are_not_kept_go_before_the_next_training(overlay):
    """With one slot no more than the weights of one training lie in the store; at the end none."""
    overlay.order("train", weights=True)
    frugal = [replace(one, store=replace(one.store, keep_weights="none"), cluster=replace(one.cluster, max_parallel=1)) for one in GRID]
    status, out = overlay.launch(frugal)
    assert status == 0, out
    seen = [entry["weights"] for entry in overlay.runs("began") if entry["kind"] == "train"]
    assert seen == [0, 0, 0, 0]
    assert [entry["weights"] for entry in overlay.runs("began") if entry["kind"] == "responses"].count(1) == 4
    assert not list((overlay.store / "train").glob("*/model"))


def test_two_launches_at_once_that_keep_no_weights_are_in_nobodys_way(overlay):
    overlay.order("train", weights=True)
    overlay.order("responses", sleep=0.3)
    frugal = [replace(one, store=replace(one.store, keep_weights="none")) for one in GRID]
    other = [
        replace(one, study=Study(name="other"), evaluation=replace(one.evaluation, sampling=replace(one.evaluation.sampling, seed=9)))
        for one in frugal
    ]
    first = overlay.popen(frugal, "local")
    second = overlay.popen(other, "local")
    out_first, _ = first.communicate(timeout=120)
    out_second, _ = second.communicate(timeout=120)
    assert first.returncode == 0, out_first
    assert second.returncode == 0, out_second
    assert overlay.counts("ended")["evaluate"] == 10
    assert not list((overlay.store / "train").glob("*/model"))


def iter_until(lines, last):
    """The lines up to the first that `last` holds for."""
    for line in lines:
        yield line
        if last(line):
            return


def test_a_stage_that_another_launch_computed_is_not_counted_as_run(overlay):
    overlay.order("student", wait=True)
    first = overlay.popen([cell("base")], "local")
    overlay.await_run("student")
    second = overlay.popen([replace(cell("base"), study=Study(name="other"))], "local")
    out = "".join(iter_until(second.stdout, lambda line: line.startswith("start") and " student " in line))
    overlay.go("student")
    out += second.communicate(timeout=120)[0]
    assert second.returncode == 0, out
    assert first.wait(timeout=120) == 0
    assert "computed by another launch in " in out
    ran = re.findall(r"(\d+) stages? ran", out + first.stdout.read())
    assert sum(map(int, ran)) == len(overlay.runs("ended"))


def test_weights_wait_for_the_training_that_will_adopt_them(overlay):
    overlay.order("train", weights=True)
    overlay.order("stream", same="equal traces")
    frugal = [replace(one, store=replace(one.store, keep_weights="none"), cluster=replace(one.cluster, max_parallel=1)) for one in GRID]
    status, out = overlay.launch(frugal)
    assert status == 0, out
    assert overlay.counts("ended")["train"] == 2
    assert not list((overlay.store / "train").glob("*/model"))


def test_two_launches_that_extend_a_study_at_once_keep_both_cells(overlay):
    assert overlay.launch(GRID[-1:])[0] == 0
    slow = overlay.root / "qup" / "launch" / "plan.py"
    slow.write_text(
        slow.read_text().replace(
            "    graph = build_graph(cells)\n", "    import time\n\n    time.sleep(2)\n    graph = build_graph(cells)\n"
        )
    )
    both = [overlay.popen([replace(one, study=replace(one.study, extend=True))], "local") for one in GRID[1:3]]
    outs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    study = Recorded.load(overlay.store / "studies" / "test")
    assert {one.label for one in study.cells} >= {"lab_foreign/slm_rft/dft", "lab_foreign/oracle_refined/sft"}
    assert len(study.cells) == 3


def test_a_killed_launch_leaves_stages_that_status_calls_lost_and_wait_does_not_wait_for(overlay):
    overlay.order("train", wait=True)
    process = overlay.popen(GRID[:1], "local")
    overlay.await_run("train")
    status, out = overlay.qup("status", "test", "--json")
    assert {stage["stage"]: stage["state"] for stage in json.loads(out)["cells"][0]["stages"]}["evaluate"] == "waiting"
    process.kill()
    process.communicate()
    status, out = overlay.qup("wait", "test", timeout=120)
    assert status == 1, out
    status, out = overlay.qup("status", "test")
    assert "whoever was to start it is gone" in out
    overlay.go("train")
    status, out = overlay.qup("retry", "test")
    assert status == 0, out
    assert overlay.qup("wait", "test", timeout=120)[0] == 0


def test_a_stage_killed_before_it_said_anything_is_told_as_such(overlay):
    path = overlay.root / "qup" / "launch" / "process.py"
    path.write_text(
        path.read_text().replace(
            "    stop.install()\n    job = Job.load(path)\n", "    os.kill(os.getpid(), signal.SIGKILL)\n    job = Job.load(path)\n"
        )
    )
    status, out = overlay.launch(GRID[-1:])
    assert status == 1
    assert "killed by SIGKILL (out of memory, perhaps), before it said anything" in out
    _, out = overlay.qup("status", "test")
    assert "killed by SIGKILL (out of memory, perhaps), before it said anything" in out
    status, out = overlay.qup("logs", "0", "student")
    assert "no log" not in out or "killed by SIGKILL" in out


def test_a_study_is_retried_from_another_folder_in_its_own_store(overlay, tmp_path):
    overlay.order("train", **{"raise": "no"})
    assert overlay.launch(GRID[:1])[0] == 1
    overlay.forget("train")
    before = len(overlay.runs())
    elsewhere, overlay.work = tmp_path / "elsewhere", tmp_path / "elsewhere"
    elsewhere.mkdir()
    status, out = overlay.qup("--dir", str(tmp_path / "work" / "multirun"), "retry", "test")
    assert status == 0, out
    assert not list(elsewhere.iterdir())
    assert {entry["kind"] for entry in overlay.runs()[before:]} == {"train", "responses", "evaluate"}


def test_what_only_slurm_knows_is_refused_in_a_retry_here(overlay):
    assert overlay.launch(GRID[-1:])[0] == 0
    for flags in (["--mem", "x2"], ["--time", "x2"], ["--stage", "train"], ["--code", "live"]):
        status, out = overlay.qup("retry", "test", *flags)
        assert status == 1
        assert flags[0] in out and "was not submitted to SLURM" in out
