"""What is asked of SLURM's controller, how often, and in which portions; its commands are stand-ins."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from qup.config.schema import Cluster, Resources
from qup.launch import pace
from qup.launch.check import faults
from qup.launch.pace import ASK_S, Pace
from qup.launch.plan import make_plan
from qup.launch.slurm.arrays import make_batches
from qup.launch.slurm.commands import Slurm, SubmitLimit
from qup.launch.units import parse_minutes
from qup.pipeline.graph import Ref
from qup.study import Study
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
