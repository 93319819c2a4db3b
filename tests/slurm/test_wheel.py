"""qup installed from a wheel submits to a real SLURM, whose jobs run the frozen code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.slurm_cluster import Cluster
from tests.helpers.wheel import Installed

pytestmark = pytest.mark.timeout(900)


def test_jobs_of_an_installed_qup_run_its_frozen_code(
    slurm: Cluster, installed: Installed, lab_small: tuple[Path, str], tmp_path: Path
) -> None:
    shutil.copytree(lab_small[0] / "store", tmp_path / "store", symlinks=True)
    cell = ("experiment=lab_small", "model=lab_foreign", "stream=base", "evaluation.sampling.seed=6", "study.name=far")
    status, out = installed.qup(tmp_path, "launch", *cell, "cluster=slurm_test", "hydra/launcher=slurm", "study.wait=true")
    assert status == 0, out
    record = json.loads((tmp_path / "multirun" / "far" / "study.json").read_text(encoding="utf-8"))
    key = record["cells"][0]["stages"]["evaluate"]
    assert (tmp_path / "store" / "evaluate" / key / "manifest.json").exists()
    scripts = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "store" / "studies" / "far").rglob("*.sh"))
    assert str(tmp_path / "store" / "code") in scripts
