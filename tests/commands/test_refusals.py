"""Command lines and own files that are refused, and errors: one message with all faults, alike for a cell and a grid."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from qup.errors import InputError
from tests.helpers.entry import FakeStudy, main


@pytest.mark.parametrize("command", ["", "-m seed=1,2"])
def test_an_error_of_ours_is_one_message(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    study.error = InputError("problems.path=x.jsonl: row 17: no JSON")
    assert main(monkeypatch, command) == 1
    assert capsys.readouterr().err == "problems.path=x.jsonl: row 17: no JSON\n"


@pytest.mark.parametrize("command", ["", "-m seed=1,2"])
def test_a_full_disk_is_one_message(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    study.error = OSError(errno.ENOSPC, "No space left on device", "multirun/x/report/cells.csv")
    assert main(monkeypatch, command) == 1
    told = capsys.readouterr().err
    assert told == "multirun/x/report/cells.csv: the disk is full; free space, or choose another place (No space left on device)\n"


@pytest.mark.parametrize("command", ["", "-m seed=1,2"])
def test_a_bug_keeps_its_traceback(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    study.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        main(monkeypatch, command)


@pytest.mark.parametrize(
    ("command", "faults"),
    [
        (
            "trainer.lrr=1 lr=3 zero=1",
            ["zero=1: unknown choice", "lr=3: unknown key; did you mean trainer.lr?", "trainer.lrr=1: unknown key"],
        ),
        ("-m trainer.lrr=1 trainer=sftt,dft", ["trainer.lrr=1: unknown key", "trainer='sftt': unknown choice; did you mean sft?"]),
        (
            "-m trainer.lr=abc,0,1e-3 stream=oracle_refined,base oracle=none",
            ["must be a number [2 of 6", "above 0 [2 of 6", "needs an Oracle"],
        ),
        ("-m experiment=labb,lab", ["experiment='labb': unknown choice; did you mean lab?"]),
        ("trainer.lr=1,2", ["trainer.lr='1,2': is a sweep; add -m"]),
        ("trainer.lora.rank=3", ["trainer.lora is null here; lora=r16 sets it"]),
        ("trainer.lr", ["is no override"]),
        ("stream=slm_rft source=oracle trainer.lr=0", ["contrary to stream=slm_rft", "above 0"]),
        ("trainer.lrr=1 trainer.epochs=0", ["unknown key", "at least 1"]),
        ("experiment=lba --cfg job", ["did you mean lab?"]),
        ("hydra/sweeper=basic trainer.lr=0", ["hydra/sweeper='basic': sweeps with -m only", "above 0"]),
        ("hydra/launcher=slrm trainer.lr=0", ["did you mean slurm?", "above 0"]),
    ],
)
def test_a_bad_command_line_is_refused_with_all_faults(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, faults: list[str]
) -> None:
    assert main(monkeypatch, command) == 2
    told = capsys.readouterr().err
    for fault in faults:
        assert fault in told
    assert "Traceback" not in told
    assert f"{len(faults)} fault" in told
    assert study.calls == []


@pytest.mark.parametrize("multirun", ["", "-m "])
@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("+trainr.lr=3e-5", "trainr.lr=3e-05: unknown key; did you mean trainer.lr?"),
        ("++trainr.lr=3e-5", "trainr.lr=3e-05: unknown key; did you mean trainer.lr?"),
        ("+foo=3", "foo=3: unknown key; the configuration has problems, model"),
        ("+lora=r16", "+lora='r16': the group has its place already; without the +: lora=r16"),
        ("study.name=1e5", "study.name='1e5': is read as 100000.0; quotes keep the text: \"study.name='1e5'\""),
        ("trainer.max_dropped=5", "must be at least 0 and at most 1; 5 % is 0.05"),
        ("trainer.max_dropped=5%", "must be a number; 5% is 0.05"),
        ("hydra.sweeper.params={trainer.lr:1}", "study.grids holds an experiment's sweeps"),
        ("+hydra.sweeper.params.seed=1", "study.grids holds an experiment's sweeps"),
        ("hydra.sweep.subdir=${hydra.job.num}", "qup makes no folder a cell: study.dir and study.name say where"),
        ("hydra.run.dir=elsewhere", "qup makes no folder a cell"),
        ("hydra.job.chdir=true", "paths and store.dir are meant from where you launch"),
        ("--config-dir nope", "--config-dir='nope': no such directory"),
        ("trainer.seed=${selection.sed}", "selection.sed"),
    ],
)
def test_a_command_line_is_refused_alike_for_a_cell_and_a_grid(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], multirun: str, command: str, fault: str
) -> None:
    assert main(monkeypatch, multirun + command) == 2
    told = capsys.readouterr().err
    assert fault in told
    assert "1 fault:" in told
    assert study.calls == []


def test_a_file_that_would_not_be_read_for_qups_own_is_refused(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "problems").mkdir(parents=True)
    (tmp_path / "conf" / "problems" / "gsm8k.yaml").write_text("path: mine.jsonl\n")
    (tmp_path / "conf" / "config.yaml").write_text("seed: 1\n")
    assert main(monkeypatch, "trainer.lr=0") == 2
    told = capsys.readouterr().err
    for fault in ("qup has a problems=gsm8k of its own", "conf='config.yaml': qup has its own", "above 0", "3 faults"):
        assert fault in told


def test_sweeps_in_an_experiments_file_are_told_where_they_belong(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nhydra: {sweeper: {params: {seed: '1,2'}}}\n")
    assert main(monkeypatch, "-m experiment=mine") == 2
    assert "study.grids holds an experiment's sweeps" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_told_together(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "trainer").mkdir(parents=True)
    (tmp_path / "conf" / "trainer" / "torn.yaml").write_text("lr: [1\n")
    (tmp_path / "conf" / "trainer" / "number.yaml").write_text("3\n")
    for command in ("trainer=torn", "-m trainer=number,sft"):
        assert main(monkeypatch, command) == 2
        told = capsys.readouterr().err
        assert "conf/trainer/torn.yaml='': not valid YAML" in told
        assert "conf/trainer/number.yaml=3: must hold a mapping" in told


@pytest.mark.parametrize("multirun", ["", "-m "])
def test_all_faults_of_a_file_are_told_with_those_of_the_command_line(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, multirun: str
) -> None:
    (tmp_path / "conf" / "trainer").mkdir(parents=True)
    (tmp_path / "conf" / "trainer" / "mine.yaml").write_text("objective: dtf\nfoo: 3\nbar: 2\nlr: abc\nlora: {rnk: 3}\n")
    assert main(monkeypatch, multirun + "trainer=mine trainer.epochs=0") == 2
    told = capsys.readouterr().err
    for fault in ("trainer.foo", "trainer.bar", "trainer.lr='abc'", "trainer.lora.rnk", "trainer.objective='dtf'", "trainer.epochs=0"):
        assert f"  {fault}" in told
    assert "6 faults" in told


@pytest.mark.parametrize("command", ["-m --cfg job", "--config-name nix", "-m --config-name nix"])
def test_what_hydra_would_answer_by_a_traceback_is_a_message(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main(monkeypatch, command) == 2
    assert "configuration refused, 1 fault" in capsys.readouterr().err


def test_hydras_own_refusal_is_short(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(monkeypatch, "--config-dir nope") != 0
    told = capsys.readouterr().err
    assert "nope" in told
    assert "Traceback" not in told
