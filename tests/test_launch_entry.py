"""launch.py: one cell and grids go the same way, errors are one message, and nothing heavy is imported."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hydra._internal.hydra import Hydra

import qup.commands.launch as entry
from qup.config.fingerprint import plain
from qup.config.schema import Config
from qup.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "deepspeed", "datasets", "wandb")


@dataclass
class FakeStudy:
    """Stands in for qup.launch.launch: records what it is handed."""

    status: int = 0
    error: Exception | None = None
    submitted: bool = False
    calls: list[tuple[list[Config], str]] = field(default_factory=list)

    judged: list[bool] = field(default_factory=list)
    """For each call, whether the cells were said to be judged already."""

    def launch(self, cells: list[Config], where: str = "local", console: object = None, *, checked: bool = False) -> Any:
        self.calls.append((list(cells), where))
        self.judged.append(checked)
        if self.error:
            raise self.error
        values: list[Any] = ["submitted" if self.submitted else float(index) for index in range(len(cells))]
        if self.status:
            values[0] = None
        return type("Outcome", (), {"status": self.status, "values": tuple(values)})


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeStudy:
    fake = FakeStudy()
    module = ModuleType("qup.launch.launch")
    module.launch = fake.launch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "qup.launch.launch", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return fake


def _main(monkeypatch: pytest.MonkeyPatch, command: str) -> int:
    """Exit status of `python launch.py …`, in this process."""
    monkeypatch.setattr(sys, "argv", ["launch.py", *command.split()])
    try:
        entry.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def test_a_grid_that_the_sweeper_judged_is_not_judged_again(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _main(monkeypatch, "-m seed=1,2") == 0
    assert _main(monkeypatch, "-m hydra/sweeper=basic seed=1,2") == 0
    assert study.judged == [True, False]


@pytest.mark.parametrize(
    ("command", "cells", "where"),
    [
        ("", 1, "local"),
        ("hydra/launcher=slurm", 1, "slurm"),
        ("-m experiment=lab_small", 22, "local"),
        ("-m experiment=paper/table1 hydra/launcher=slurm", 9, "slurm"),
        ("-m stream=slm_rft,oracle_refined trainer=sft,dft trainer.lr=2e-5,5e-5", 8, "local"),
        ("hydra.mode=MULTIRUN seed=1,2", 2, "local"),
        ("-m", 1, "local"),
    ],
)
def test_all_cells_are_handed_over_at_once(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, command: str, cells: int, where: str) -> None:
    assert _main(monkeypatch, command) == 0
    assert [(len(handed), at) for handed, at in study.calls] == [(cells, where)]


def test_one_cell_is_the_same_with_and_without_a_grid(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("trainer=dft seed=3 study.name=x", "-m trainer=dft seed=3 study.name=x"):
        assert _main(monkeypatch, command) == 0
    (alone, _), (swept, _) = study.calls
    assert alone == swept


def test_one_cell_of_an_experiment_with_a_grid_says_so(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "experiment=lab") == 0
    assert "-m runs" in capsys.readouterr().err
    assert study.calls[0][0][0].study.name == "lab-cell", "or the grid itself could not have its name any more"
    assert _main(monkeypatch, "-m experiment=lab") == 0
    assert {cell.study.name for cell in study.calls[1][0]} == {"lab"}
    assert _main(monkeypatch, "experiment=lab study.name=mine") == 0
    assert study.calls[2][0][0].study.name == "mine"


def test_nothing_is_left_lying_about(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _main(monkeypatch, "")
    _main(monkeypatch, "-m experiment=lab_small")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["", "-m seed=1,2"])
def test_a_failed_stage_is_exit_status_one(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    study.status = 1
    assert _main(monkeypatch, command) == 1


@pytest.mark.parametrize("command", ["", "-m seed=1,2"])
def test_an_error_of_ours_is_one_message(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    study.error = InputError("problems.path=x.jsonl: row 17: no JSON")
    assert _main(monkeypatch, command) == 1
    assert capsys.readouterr().err == "problems.path=x.jsonl: row 17: no JSON\n"


@pytest.mark.parametrize("command", ["", "-m seed=1,2"])
def test_a_full_disk_is_one_message(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    study.error = OSError(errno.ENOSPC, "No space left on device", "multirun/x/report/cells.csv")
    assert _main(monkeypatch, command) == 1
    told = capsys.readouterr().err
    assert told == "multirun/x/report/cells.csv: the disk is full; free space, or choose another place (No space left on device)\n"


@pytest.mark.parametrize("command", ["", "-m seed=1,2"])
def test_a_bug_keeps_its_traceback(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    study.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        _main(monkeypatch, command)


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
    assert _main(monkeypatch, command) == 2
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
    assert _main(monkeypatch, multirun + command) == 2
    told = capsys.readouterr().err
    assert fault in told
    assert "1 fault:" in told
    assert study.calls == []


@pytest.mark.parametrize("multirun", ["", "-m "])
def test_settings_of_the_command_line_may_refer_to_others(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, multirun: str) -> None:
    assert _main(monkeypatch, multirun + "selection.seed=7 trainer.seed=${selection.seed} trainer=dft") == 0
    ((cell,), _) = study.calls[0]
    assert (cell.trainer.seed, cell.selection.seed, cell.trainer.objective) == (7, 7, "dft")


@pytest.mark.parametrize("multirun", ["", "-m "])
def test_the_primary_file_may_be_ones_own(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, multirun: str) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text("defaults: [config, _self_]\ntrainer: {lr: 7e-6}\n")
    assert _main(monkeypatch, multirun + "--config-name mine seed=1") == 0
    ((cell,), _) = study.calls[0]
    assert (cell.trainer.lr, cell.seed) == (7e-6, 1)


def test_a_folder_conf_where_one_launches_is_read(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nstudy: {grids: [{seed: '1,2'}]}\n")
    assert _main(monkeypatch, "-m experiment=mine") == 0
    assert [cell.study.name for cell in study.calls[0][0]] == ["mine", "mine"]


def test_another_folder_takes_the_place_of_conf(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for folder, name in (("conf", "here"), ("other", "there")):
        (tmp_path / folder / "trainer").mkdir(parents=True)
        (tmp_path / folder / "trainer" / f"{name}.yaml").write_text("objective: dft\n")
    assert _main(monkeypatch, "--config-dir other trainer=there") == 0
    assert _main(monkeypatch, "--config-dir other trainer=here") == 2
    assert "unknown choice; did you mean there?" in capsys.readouterr().err


def test_a_file_that_would_not_be_read_for_qups_own_is_refused(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "problems").mkdir(parents=True)
    (tmp_path / "conf" / "problems" / "gsm8k.yaml").write_text("path: mine.jsonl\n")
    (tmp_path / "conf" / "config.yaml").write_text("seed: 1\n")
    assert _main(monkeypatch, "trainer.lr=0") == 2
    told = capsys.readouterr().err
    for fault in ("qup has a problems=gsm8k of its own", "conf='config.yaml': qup has its own", "above 0", "3 faults"):
        assert fault in told


def test_sweeps_in_an_experiments_file_are_told_where_they_belong(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nhydra: {sweeper: {params: {seed: '1,2'}}}\n")
    assert _main(monkeypatch, "-m experiment=mine") == 2
    assert "study.grids holds an experiment's sweeps" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_told_together(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "trainer").mkdir(parents=True)
    (tmp_path / "conf" / "trainer" / "torn.yaml").write_text("lr: [1\n")
    (tmp_path / "conf" / "trainer" / "number.yaml").write_text("3\n")
    for command in ("trainer=torn", "-m trainer=number,sft"):
        assert _main(monkeypatch, command) == 2
        told = capsys.readouterr().err
        assert "conf/trainer/torn.yaml='': not valid YAML" in told
        assert "conf/trainer/number.yaml=3: must hold a mapping" in told


@pytest.mark.parametrize("multirun", ["", "-m "])
def test_all_faults_of_a_file_are_told_with_those_of_the_command_line(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, multirun: str
) -> None:
    (tmp_path / "conf" / "trainer").mkdir(parents=True)
    (tmp_path / "conf" / "trainer" / "mine.yaml").write_text("objective: dtf\nfoo: 3\nbar: 2\nlr: abc\nlora: {rnk: 3}\n")
    assert _main(monkeypatch, multirun + "trainer=mine trainer.epochs=0") == 2
    told = capsys.readouterr().err
    for fault in ("trainer.foo", "trainer.bar", "trainer.lr='abc'", "trainer.lora.rnk", "trainer.objective='dtf'", "trainer.epochs=0"):
        assert f"  {fault}" in told
    assert "6 faults" in told


@pytest.mark.parametrize("command", ["-m --cfg job", "--config-name nix", "-m --config-name nix"])
def test_what_hydra_would_answer_by_a_traceback_is_a_message(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert _main(monkeypatch, command) == 2
    assert "configuration refused, 1 fault" in capsys.readouterr().err


def test_hydras_own_refusal_is_short(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(monkeypatch, "--config-dir nope") != 0
    told = capsys.readouterr().err
    assert "nope" in told
    assert "Traceback" not in told


def test_the_environment_is_as_before(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    study.error = InputError("x")
    with pytest.raises(InputError):
        _main(monkeypatch, "-m seed=1,2")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_below_hydras_own_sweeper_the_launcher_returns_each_cells_value(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "-m hydra/sweeper=basic seed=1,2") == 0
    assert [len(cells) for cells, _ in study.calls] == [2]
    study.status = 1
    assert _main(monkeypatch, "-m hydra/sweeper=basic seed=1,2") == 1
    assert "did not finish" in capsys.readouterr().err


def test_later_batches_of_another_sweeper_extend_the_study(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _main(monkeypatch, "-m hydra/sweeper=basic hydra.sweeper.max_batch_size=1 seed=1,2,3") == 0
    assert [cells[0].study.extend for cells, _ in study.calls] == [False, True, True]
    assert len({cells[0].study.name for cells, _ in study.calls}) == 1


def test_what_is_only_submitted_is_returned_as_such(study: FakeStudy) -> None:
    from hydra.core.utils import JobStatus
    from omegaconf import OmegaConf

    from hydra_plugins.qup_launcher import SlurmLauncher
    from qup.config.door import stand_alone_loader

    study.submitted = True
    launcher = SlurmLauncher()
    context: Any = type("Context", (), {"config_loader": stand_alone_loader()})
    config = OmegaConf.create({"hydra": {"overrides": {"hydra": []}, "job": {"config_name": "config"}}})
    launcher.setup(hydra_context=context, task_function=lambda config: None, config=config)
    returned = launcher.launch([["seed=1"], ["seed=2"]], 0)
    assert [(one.status, one.return_value) for one in returned] == [(JobStatus.COMPLETED, "submitted")] * 2
    assert study.calls[0][1] == "slurm"


@pytest.mark.parametrize("command", ["", "experiment=lab_small reward=[lab_steps] trainer=dft seed=3"])
def test_the_configuration_that_is_shown_is_that_of_the_cell_that_runs(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Hydra's own would still hold the reward model and the benchmarks that the experiment changed and that are not chosen."""
    command += " study.name=shown"
    assert _main(monkeypatch, command) == 0
    (cell,) = study.calls[0][0]
    capsys.readouterr()
    assert _main(monkeypatch, f"{command} --cfg job") == 0
    assert yaml.safe_load(capsys.readouterr().out) == plain(cell)
    assert _main(monkeypatch, f"{command} --cfg job --package evaluation.sampling") == 0
    assert yaml.safe_load(capsys.readouterr().out) == plain(cell.evaluation.sampling)


def test_a_part_of_the_configuration_that_is_not_there_is_refused(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "--cfg job --package trainr") == 2
    assert "--package='trainr': did you mean trainer?" in capsys.readouterr().err


def _python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_showing_the_configuration_imports_nothing_heavy_and_is_quick(tmp_path: Path) -> None:
    script = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["launch.py", "--cfg", "job"]
try:
    runpy.run_path({str(ROOT / "launch.py")!r}, run_name="__main__")
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = _python("-c", script, cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert "objective: sft" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 2, "processor seconds"
    assert list(tmp_path.iterdir()) == []


def test_composing_a_grid_imports_nothing_heavy(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from qup.config.compose import Composer
from qup.config.sweeps import expand
from qup.identity.resolve import resolve_grid
from qup.launch.check import checked_grid
composer = Composer.over()
resolve_grid(checked_grid(composer, expand(composer, ["experiment=lab"])), Path("store"))
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = _python("-c", script, cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


def test_planning_a_cell_of_the_lab_imports_no_tables(tmp_path: Path) -> None:
    script = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["launch.py", "study.dry_run=true"]
try:
    runpy.run_path({str(ROOT / "launch.py")!r}, run_name="__main__")
finally:
    print([name for name in {(*HEAVY, "numpy", "pyarrow")!r} if name in sys.modules], file=sys.stderr)
"""
    done = _python("-c", script, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize("command", ["", "-m seed=1,2"])
def test_hydra_composes_the_whole_configuration_once(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    composed: list[str] = []
    compose = Hydra.compose_config
    monkeypatch.setattr(Hydra, "compose_config", lambda self, *args, **given: composed.append("once") or compose(self, *args, **given))
    assert _main(monkeypatch, command) == 0
    assert composed == ["once"]


def test_help_names_groups_and_ways_to_begin(tmp_path: Path) -> None:
    done = _python(str(ROOT / "launch.py"), "--help", cwd=tmp_path)
    assert done.returncode == 0
    for text in ("python launch.py -m experiment=lab", "stream: base, ", "hydra/launcher: local, slurm", "experiment/paper: "):
        assert text in done.stdout


def test_tab_completion_is_hydras(tmp_path: Path) -> None:
    query = {**os.environ, "COMP_LINE": "python launch.py trainer=", "COMP_POINT": "25"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "-sc", "query=bash"], cwd=tmp_path, env=query, capture_output=True, text=True, timeout=120
    )
    assert {"trainer=dft", "trainer=sft"} <= set(done.stdout.split())
