"""launch.py: one cell and grids go the same way, errors are one message, and nothing heavy is imported."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra

from qup.errors import InputError
from tests.helpers.entry import FakeStudy, main

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "deepspeed", "datasets", "wandb")


def test_a_grid_that_the_sweeper_judged_is_not_judged_again(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(monkeypatch, "-m seed=1,2") == 0
    assert main(monkeypatch, "-m hydra/sweeper=basic seed=1,2") == 0
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
    assert main(monkeypatch, command) == 0
    assert [(len(handed), at) for handed, at in study.calls] == [(cells, where)]


def test_one_cell_is_the_same_with_and_without_a_grid(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("trainer=dft seed=3 study.name=x", "-m trainer=dft seed=3 study.name=x"):
        assert main(monkeypatch, command) == 0
    (alone, _), (swept, _) = study.calls
    assert alone == swept


def test_one_cell_of_an_experiment_with_a_grid_says_so(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, "experiment=lab") == 0
    assert "-m runs" in capsys.readouterr().err
    assert study.calls[0][0][0].study.name == "lab-cell", "or the grid itself could not have its name any more"
    assert main(monkeypatch, "-m experiment=lab") == 0
    assert {cell.study.name for cell in study.calls[1][0]} == {"lab"}
    assert main(monkeypatch, "experiment=lab study.name=mine") == 0
    assert study.calls[2][0][0].study.name == "mine"


def test_nothing_is_left_lying_about(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    main(monkeypatch, "")
    main(monkeypatch, "-m experiment=lab_small")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["", "-m seed=1,2"])
def test_a_failed_stage_is_exit_status_one(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    study.status = 1
    assert main(monkeypatch, command) == 1


@pytest.mark.parametrize("multirun", ["", "-m "])
def test_settings_of_the_command_line_may_refer_to_others(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, multirun: str) -> None:
    assert main(monkeypatch, multirun + "selection.seed=7 trainer.seed=${selection.seed} trainer=dft") == 0
    ((cell,), _) = study.calls[0]
    assert (cell.trainer.seed, cell.selection.seed, cell.trainer.objective) == (7, 7, "dft")


@pytest.mark.parametrize("multirun", ["", "-m "])
def test_the_primary_file_may_be_ones_own(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, multirun: str) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text("defaults: [config, _self_]\ntrainer: {lr: 7e-6}\n")
    assert main(monkeypatch, multirun + "--config-name mine seed=1") == 0
    ((cell,), _) = study.calls[0]
    assert (cell.trainer.lr, cell.seed) == (7e-6, 1)


def test_a_folder_conf_where_one_launches_is_read(study: FakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nstudy: {grids: [{seed: '1,2'}]}\n")
    assert main(monkeypatch, "-m experiment=mine") == 0
    assert [cell.study.name for cell in study.calls[0][0]] == ["mine", "mine"]


def test_another_folder_takes_the_place_of_conf(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for folder, name in (("conf", "here"), ("other", "there")):
        (tmp_path / folder / "trainer").mkdir(parents=True)
        (tmp_path / folder / "trainer" / f"{name}.yaml").write_text("objective: dft\n")
    assert main(monkeypatch, "--config-dir other trainer=there") == 0
    assert main(monkeypatch, "--config-dir other trainer=here") == 2
    assert "unknown choice; did you mean there?" in capsys.readouterr().err


def test_the_environment_is_as_before(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    study.error = InputError("x")
    with pytest.raises(InputError):
        main(monkeypatch, "-m seed=1,2")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_below_hydras_own_sweeper_the_launcher_returns_each_cells_value(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, "-m hydra/sweeper=basic seed=1,2") == 0
    assert [len(cells) for cells, _ in study.calls] == [2]
    study.status = 1
    assert main(monkeypatch, "-m hydra/sweeper=basic seed=1,2") == 1
    assert "did not finish" in capsys.readouterr().err


def test_later_batches_of_another_sweeper_extend_the_study(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(monkeypatch, "-m hydra/sweeper=basic hydra.sweeper.max_batch_size=1 seed=1,2,3") == 0
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
    assert main(monkeypatch, command) == 0
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
