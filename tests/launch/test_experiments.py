"""Every experiment is planned and priced without a network, a key or a GPU."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from qup.config.compose import Composer
from qup.config.door import CONF
from qup.config.sweeps import expand
from qup.launch.launch import launch

EXPERIMENTS = sorted(path.relative_to(CONF / "experiment").with_suffix("").as_posix() for path in (CONF / "experiment").rglob("*.yaml"))
GIVEN = {"mawps_smollm2", "mawps_teachers"}
"""Need files that are not in the repository."""
UNASKED = {"paper/teachers"}
"""Its traces are there already: no Oracle is paid."""


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name not in GIVEN])
def test_an_experiment_is_planned_and_priced_offline(experiment, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    composer = Composer.over()
    cells = composer.grid(
        expand(composer, [f"experiment={experiment}", f"store.dir={tmp_path / 'store'}", f"study.dir={tmp_path / 'runs'}"])
    )
    cells = [replace(cell, study=replace(cell.study, dry_run=True)) for cell in cells]
    said = io.StringIO()
    assert launch(cells, console=Console(file=said, width=200)).status == 0
    (plan,) = (tmp_path / "runs").glob("*/plan.json")
    totals = json.loads(plan.read_text())["totals"]
    assert totals["cells"] == len(cells)
    assert totals["stages"] == totals["to_run"] < totals["stage_runs"]
    paid = experiment.startswith("paper/")
    assert (totals["gpu_hours"] > 10) == paid
    assert (totals["oracle_usd"] > 100) == (paid and experiment not in UNASKED)
    assert totals["cpu_hours"] > 0
    assert not (tmp_path / "store").exists()


def test_there_are_nineteen_experiments() -> None:
    assert len(EXPERIMENTS) == 19
