"""What is asked of SLURM's controller, how often, and in which portions; its commands are stand-ins."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from qup.config.schema import Cluster, Resources
from qup.files import write_json
from qup.launch import pace, watch
from qup.launch.check import faults
from qup.launch.pace import ASK_S, Pace
from qup.launch.plan import make_plan
from qup.launch.slurm import driver, launch, site
from qup.launch.slurm.arrays import make_batches
from qup.launch.slurm.commands import QueueJob, Slurm, SubmitLimit
from qup.launch.slurm.submit import Submitter, parameters
from qup.launch.snapshot import Snapshot
from qup.launch.status import study_status
from qup.launch.units import parse_minutes
from qup.pipeline.graph import Ref
from qup.store import Store
from qup.study import Study, identity
from tests.helpers.cells import cell


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Makes stand-ins of commands, which note how they are called."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(name, script):
        (tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/{name}.calls\n{script}\n')
        (tmp_path / name).chmod(0o755)
        return lambda: (tmp_path / f"{name}.calls").read_text().splitlines()

    return make


def test_only_this_users_jobs_are_looked_at_in_one_call(commands):
    calls = commands("squeue", "")
    assert Slurm().jobs() == {}
    (call,) = calls()
    assert "--me" in call.split()


def test_one_look_at_a_study_asks_for_the_queue_once(commands, tmp_path):
    calls = commands("squeue", "")
    study = Study("test", (), tmp_path, tmp_path / "studies" / "test", {})
    study.save()
    write_json(site.driver_record(study.folder), {"job": "7"})
    study_status(study.folder, Slurm())
    assert len(calls()) == 1


def test_a_wait_that_nobody_watches_asks_seldom(tmp_path, monkeypatch):
    study = Study("test", (), tmp_path, tmp_path / "studies" / "test", {})
    study.save()
    longest = []
    monkeypatch.setattr(watch, "Pace", lambda study, most: longest.append(most))
    for terminal in (False, True):
        watch.watch(study.folder, Console(quiet=True, force_terminal=terminal))
    assert longest == [ASK_S, watch.WATCHED_S]
    monkeypatch.setattr(driver, "Pace", lambda study, most=ASK_S: longest.append(most))
    monkeypatch.setattr(driver, "_wave", lambda *rest: True)
    driver.drive(site.Site("test", study.folder, Store(tmp_path), Cluster(), None, tmp_path), Slurm(), bool, logging.getLogger())
    assert longest[2:] == [ASK_S]


def test_only_held_jobs_of_this_very_study_are_leftovers_of_a_dead_client(tmp_path):
    store, other = tmp_path / "store", tmp_path / "other"
    marks = {"1": identity("test", store), "2": identity("test", other), "3": identity("test", store)}
    there = {
        job: QueueJob(job, "PENDING", "Priority" if job == "3" else "JobHeldUser", 0, "", f"qup {mark} abc.0 x")
        for job, mark in marks.items()
    }
    cancelled = []

    class Asked(Slurm):
        def jobs(self):
            return there

        def max_array_size(self):
            return 1001

        def cancel(self, ids):
            cancelled.extend(ids)

    here = site.Site("test", store / "studies" / "test", Store(store), Cluster(), None, tmp_path)
    assert Submitter(here, Asked()).clear_leftovers() == cancelled == ["1"]


def test_hints_after_a_launch_name_the_folder_of_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = replace(cell(), study=replace(cell().study, dir=str(tmp_path / "mine")))
    assert launch._hints(first, "status", "wait") == "qup --dir mine status test · qup --dir mine wait test"


def test_arguments_of_srun_reach_it(tmp_path):
    here = site.Site("test", tmp_path, Store(tmp_path), Cluster(), None, tmp_path)
    for kind, ours in (("evaluate", []), ("train", ["--wait=40"])):
        made = parameters(here, Resources(tasks=2, srun=("--cpu-bind=none",)), "a.0", kind, "x", "")
        assert made["srun_args"] == [*ours, "--cpu-bind=none"]


def test_a_launch_says_what_was_left_out_of_the_frozen_code(tmp_path, monkeypatch):
    data = Path("models/weights.bin")
    monkeypatch.setattr(site, "freeze_code", lambda store: Snapshot(tmp_path / "code", "d", "", (data,)))
    one = cell()
    said = []
    site.make_site(make_plan([replace(one, store=replace(one.store, dir=str(tmp_path)))], tmp_path / "studies" / "test"), one, said.append)
    assert len(said) == 1 and said[0].startswith("1 files") and str(data) in said[0]


def test_accounting_is_asked_about_an_end_once(commands):
    calls = commands("sacct", "echo '7|FAILED|1:0|00:01'")
    slurm = Slurm()
    for _ in range(3):
        assert slurm.accounted(["7"])["7"].state == "FAILED"
    assert len(calls()) == 1


def test_a_refusal_and_a_full_queue_are_told_apart(commands, tmp_path):
    commands("sbatch", "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1")
    with pytest.raises(SubmitLimit):
        Slurm().submit(tmp_path / "script.sh", "a.0")
    commands("sbatch", "echo 'sbatch: error: invalid partition specified' >&2; exit 1")
    with pytest.raises(Exception, match=r"sbatch refused the job: .*invalid partition"):
        Slurm().submit(tmp_path / "script.sh", "a.0")


def test_a_controller_that_stays_away_ends_in_a_clear_error(commands, tmp_path):
    calls = commands("sbatch", "echo 'Unable to contact slurm controller' >&2; exit 1")
    commands("squeue", "")
    with pytest.raises(Exception, match="does not answer"):
        Slurm(patience_s=1.0).submit(tmp_path / "script.sh", "a.0")
    assert len(calls()) > 1


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1001])
def test_every_stage_is_submitted_once_whatever_the_largest_array(tmp_path, size):
    wide = Cluster(rollouts=Resources(workers=3))
    cells = [replace(cell(arm, loss), cluster=wide) for arm in ("slm_rft", "oracle_refined") for loss in ("sft", "dft")]
    plan = make_plan([replace(one, store=replace(one.store, dir=str(tmp_path))) for one in cells], tmp_path / "studies" / "test")
    batches = make_batches(plan.to_run, {}, size)
    assert max(len(batch.units) for batch in batches) <= max(1, size)
    whole = [unit.ref for batch in batches for unit in batch.units if unit.worker is None]
    assert sorted(whole) == sorted(plan.to_run)


def test_a_stage_whose_workers_could_never_be_submitted_is_refused():
    def told(workers):
        return [fault.key for fault in faults(cell(cluster=Cluster(max_jobs=4, rollouts=Resources(workers=workers))), launcher="slurm")]

    assert told(4) == ["cluster.max_jobs"]
    assert told(3) == []


@pytest.mark.parametrize(("text", "minutes"), [("90", 90), ("1:30", 1.5), ("2:00:00", 120), ("1-0", 1440), ("1-02:30", 1590)])
def test_times_are_read_as_slurm_reads_them(text, minutes):
    assert parse_minutes(text) == minutes


def test_what_nobody_watches_is_asked_for_ever_more_seldom_until_something_happens(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(pace.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    ref = Ref("problems", "a" * 20)
    study = Study("test", (), tmp_path, tmp_path / "studies" / "test", {ref: ()})
    asked = Pace(study)

    def waits(count):
        times = []
        for _ in range(count):
            before = clock[0]
            asked.pause()
            times.append(clock[0] - before)
        return times

    assert waits(8) == [1, 2, 4, 8, 16, ASK_S, ASK_S, ASK_S]
    Path(tmp_path / "problems" / ref.key).mkdir(parents=True)
    assert waits(3) == [1, 1, 2]
