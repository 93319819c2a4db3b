"""qup installed from a wheel: what it carries, and that it works from any folder and writes nothing beside itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.lab import ROOT
from tests.helpers.wheel import Installed, contents

pytestmark = pytest.mark.timeout(900)

CELL = ("experiment=lab_small", "model=lab_foreign", "stream=base")
"""The untuned student: with another seed of the evaluation, the cheapest cell that runs a stage."""


def test_the_wheel_carries_code_configuration_and_templates(installed: Installed) -> None:
    held = contents(installed.wheel)
    expected = {f"qup/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    for part in ("qup", "hydra_plugins"):
        files = (path for path in (ROOT / part).rglob("*") if path.is_file() and path.suffix != ".pyc")
        expected |= {path.relative_to(ROOT).as_posix() for path in files}
    assert len(expected) > 250
    assert held - expected == {name for name in held if ".dist-info/" in name}
    assert expected - held == set()


def test_another_folder_launches_with_its_own_configuration(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [lab_small]\nstudy: {grids: [{stream: 'base,slm_rft'}]}\n"
    )
    status, out = installed.qup(tmp_path, "launch", "-m", "experiment=mine", "study.dry_run=true")
    assert status == 0, out
    assert out.startswith("mine  2 cells")
    assert "experiment/paper: lr_batch" in installed.qup(tmp_path, "launch", "--help")[1]


@pytest.fixture(scope="module")
def folder(lab_small: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("far")
    shutil.copytree(lab_small[0] / "store", made / "store", symlinks=True)
    return made


def test_a_cell_runs_and_nothing_is_written_beside_the_code(installed: Installed, folder: Path) -> None:
    before = installed.files()
    status, out = installed.qup(folder, "launch", *CELL, "evaluation.sampling.seed=5", "study.name=far")
    assert status == 0, out
    assert "2 stages ran" in out, "responses, and what they come to"
    assert installed.files() == before
    assert (folder / "multirun" / "far" / "report" / "report.html").exists()
    assert installed.qup(folder, "status", "far")[0] == 0


def test_a_commit_of_the_folder_around_an_installation_is_not_qups(installed: Installed, folder: Path) -> None:
    """A virtual environment often lies in somebody's repository."""
    import subprocess

    script = f"from pathlib import Path; from qup.launch.snapshot import freeze_code; from qup.store import Store; s = freeze_code(Store(Path({str(folder / 'store')!r}))); print(s.commit or 'none', s.path)"
    repository = installed.root.parent
    for words in (["init", "-q"], ["-c", "user.name=x", "-c", "user.email=x@y.z", "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    try:
        done = subprocess.run(
            [str(installed.root / "bin" / "python"), "-c", script], cwd=folder, env=installed.environment(), capture_output=True, text=True
        )
    finally:
        shutil.rmtree(repository / ".git")
    assert done.returncode == 0, done.stderr
    commit, path = done.stdout.split()
    assert commit == "none"
    frozen = {found.relative_to(path).parts[0] for found in Path(path).rglob("*") if found.is_file() and not found.name.startswith(".")}
    assert frozen == {"qup", "hydra_plugins"}
    assert (Path(path) / "qup" / "conf" / "config.yaml").exists()
