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

import launch as entry
from qup.config.schema import Config
from qup.errors import InputError

ROOT = Path(entry.__file__).resolve().parent
HEAVY = ("torch", "transformers", "deepspeed", "datasets", "wandb")


@dataclass
class FakeStudy:
    """Stands in for qup.launch.launch: records what it is handed."""

    status: int = 0
    error: Exception | None = None
    submitted: bool = False
    calls: list[tuple[list[Config], str]] = field(default_factory=list)

    def launch(self, cells: list[Config], where: str = "local", console: object = None) -> Any:
        self.calls.append((list(cells), where))
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
        ("hydra/launcher=basic", ["hydra/launcher='basic': local or slurm; Hydra asks another launcher with -m only"]),
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
    config = OmegaConf.create({"hydra": {"overrides": {"hydra": []}}})
    launcher.setup(hydra_context=context, task_function=lambda config: None, config=config)
    returned = launcher.launch([["seed=1"], ["seed=2"]], 0)
    assert [(one.status, one.return_value) for one in returned] == [(JobStatus.COMPLETED, "submitted")] * 2
    assert study.calls[0][1] == "slurm"


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


def test_help_names_groups_and_ways_to_begin(tmp_path: Path) -> None:
    done = _python(str(ROOT / "launch.py"), "--help", cwd=tmp_path)
    assert done.returncode == 0
    for text in ("python launch.py -m experiment=lab", "stream: base, numina_subset", "hydra/launcher: local, slurm", "experiment/paper: "):
        assert text in done.stdout


def test_tab_completion_is_hydras(tmp_path: Path) -> None:
    query = {**os.environ, "COMP_LINE": "python launch.py trainer=", "COMP_POINT": "25"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "-sc", "query=bash"], cwd=tmp_path, env=query, capture_output=True, text=True, timeout=120
    )
    assert {"trainer=dft", "trainer=sft"} <= set(done.stdout.split())
