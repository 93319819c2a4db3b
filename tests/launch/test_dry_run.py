"""Dry runs: what they write, and that they are in nobody's way."""

import json
from dataclasses import replace

import pytest

from qup.cli import main
from tests.helpers.cells import GRID, cell


def test_a_dry_run_writes_the_plan_and_runs_nothing(overlay):
    dry = [replace(one, study=replace(one.study, dry_run=True)) for one in GRID]
    status, out = overlay.launch(dry)
    assert status == 0, out
    plan = json.loads((overlay.work / "multirun" / "test" / "plan.json").read_text())
    assert len(plan["cells"]) == 5
    assert plan["cluster"] == "local"
    assert plan["totals"]["to_run"] == len(plan["stages"]) > 10
    stage = plan["stages"][0]
    assert {"key", "name", "state", "inputs", "cells", "resources", "cost"} <= stage.keys()
    assert not overlay.runs()
    assert not (overlay.store / "problems").exists()


def test_a_dry_run_has_no_report_that_would_be_in_a_launchs_way(overlay):
    dry = [replace(cell("base"), study=replace(cell("base").study, dry_run=True))]
    assert overlay.launch(dry)[0] == 0
    with pytest.raises(SystemExit) as stop:
        main(["--dir", str(overlay.work / "multirun"), "report", "test"])
    assert stop.value.code == 1
    assert {path.name for path in (overlay.work / "multirun" / "test").iterdir()} == {"plan.json", "study.json"}
    assert overlay.launch([cell("base")])[0] == 0


def test_a_dry_run_before_the_launch_is_in_nobodys_way(overlay):
    cells = [cell("base")]
    dry = [replace(one, study=replace(one.study, dry_run=True)) for one in cells]
    assert overlay.launch(dry)[0] == 0
    assert (overlay.work / "multirun" / "test" / "plan.json").exists()
    status, out = overlay.launch(cells)
    assert status == 0, out
    assert (overlay.work / "multirun" / "test").is_symlink()


def test_a_dry_run_is_not_retried_or_waited_for_and_no_row_of_status(overlay):
    dry = [replace(one, study=replace(one.study, name="tried", dry_run=True)) for one in GRID[:1]]
    assert overlay.launch(dry)[0] == 0
    for command in (["retry", "tried"], ["wait", "tried"], ["cancel", "tried"], ["logs", "0", "train", "--study", "tried"]):
        status, out = overlay.qup(*command)
        assert status == 1, command
        assert "a dry run, of which nothing has run" in out, command
    assert not overlay.runs()
    assert overlay.launch(GRID[-1:])[0] == 0
    _, out = overlay.qup("status")
    assert "dry runs, of which nothing has run: tried" in out
    assert [line.split()[0] for line in out.splitlines() if line.strip().endswith(("1", "0"))] == ["test"]
