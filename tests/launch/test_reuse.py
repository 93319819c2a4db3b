"""What is stored serves again: stored results, equal work, results of other code, and corrupt ones."""

import json
import subprocess
from dataclasses import replace

import pytest
from rich.console import Console

from qup.config.schema import Study
from qup.errors import StoreError
from qup.launch.local import run
from qup.launch.plan import make_plan
from tests.helpers.cells import GRID, cell


def test_a_corrupt_result_is_set_aside_and_computed_anew(overlay):
    assert overlay.launch(GRID[:1])[0] == 0
    (path,) = (overlay.store / "evaluate").glob("*/result.txt")
    path.write_text(path.read_text().upper())
    status, out = overlay.launch(GRID[:1])
    assert status == 0, out
    assert "corrupt" in out
    assert overlay.counts("ended")["evaluate"] == 2
    assert len(list((overlay.store / "corrupt").iterdir())) == 1


def test_an_artifact_found_corrupt_while_planning_is_named(overlay):
    assert overlay.launch(GRID[:1])[0] == 0
    (path,) = (overlay.store / "train").glob("*/result.txt")
    path.unlink()
    status, out = overlay.launch(GRID[:1])
    assert status == 0, out
    (aside,) = (overlay.store / "corrupt").iterdir()
    assert f"corrupt, set aside: {aside}" in out
    assert overlay.counts("ended")["train"] == 2


def test_a_stored_result_needs_nothing_above_it(overlay):
    assert overlay.launch(GRID[:1])[0] == 0
    for kind in ("rollouts", "candidates", "problems"):
        for path in (overlay.store / kind).iterdir():
            subprocess.run(["rm", "-rf", str(path)], check=True)
    before = len(overlay.runs())
    status, _out = overlay.launch(GRID[:1])
    assert status == 0
    assert len(overlay.runs()) == before


def test_other_code_of_the_same_version_is_named_and_may_be_recomputed(overlay):
    assert overlay.launch(GRID[:1])[0] == 0
    path = overlay.root / "qup" / "stages" / "evaluate.py"
    path.write_text(path.read_text() + "\nCHANGED = 1\n")
    status, out = overlay.launch(GRID[:1])
    assert status == 0
    assert "1 stored stages were made by other code" in out
    refuse = [replace(one, study=replace(one.study, other_code="refuse")) for one in GRID[:1]]
    status, out = overlay.launch(refuse)
    assert status == 1 and "study.other_code=refuse" in out
    recompute = [replace(one, study=replace(one.study, other_code="recompute")) for one in GRID[:1]]
    status, out = overlay.launch(recompute)
    assert status == 0, out
    assert overlay.counts("ended")["evaluate"] == 2


def test_a_change_of_verification_redoes_verification_alone(overlay):
    """Where no verdict changes by it; the plan names what has another key."""
    overlay.order("verdicts", same="as before")
    native = [one for one in GRID if one.stream.name == "slm_rft"][:1]
    status, out = overlay.launch(native)
    assert status == 0, out
    before = len(overlay.runs("began"))
    patient = [
        replace(
            one,
            study=Study(name="patient"),
            rollouts=replace(one.rollouts, timeout_s=9.0),
            evaluation=replace(one.evaluation, timeout_s=9.0),
        )
        for one in native
    ]
    status, out = overlay.launch(patient)
    assert status == 0, out
    assert {entry["kind"] for entry in overlay.runs("began")[before:]} == {"verdicts", "evaluate"}
    plan = json.loads((overlay.work / "multirun" / "patient" / "plan.json").read_text())
    assert {stage["name"]: stage["state"] for stage in plan["stages"]}["rollouts"] == "stored"


def test_another_reading_of_benchmarks_wants_no_weights(overlay):
    status, out = overlay.launch(GRID[:1])
    assert status == 0, out
    before = len(overlay.runs("began"))
    boxed = {name: replace(benchmark, extraction="boxed") for name, benchmark in GRID[0].evaluation.benchmarks.items()}
    other = [replace(one, study=Study(name="boxed"), evaluation=replace(one.evaluation, benchmarks=boxed)) for one in GRID[:1]]
    status, out = overlay.launch(other)
    assert status == 0, out
    assert [entry["kind"] for entry in overlay.runs("began")[before:]] == ["evaluate"]
    plan = json.loads((overlay.work / "multirun" / "boxed" / "plan.json").read_text())
    assert [stage["name"] for stage in plan["stages"] if stage["state"] == "run"] == ["evaluate"]


@pytest.mark.parametrize("policy", ["warn", "refuse", "recompute"])
def test_equal_work_of_other_code_is_adopted_with_a_warning_only(overlay, policy):
    overlay.order("stream", same="equal traces")
    assert overlay.launch(GRID[:1])[0] == 0
    path = overlay.root / "qup" / "stages" / "train.py"
    path.write_text(path.read_text() + "\nCHANGED = 1\n")
    second = [replace(one, study=replace(one.study, name="second", other_code=policy)) for one in GRID[2:3]]
    status, out = overlay.launch(second)
    assert status == 0, out
    taken = policy == "warn"
    assert overlay.counts("ended")["train"] == (1 if taken else 2)
    log = next(iter((overlay.store / "studies" / "second" / "logs").glob("train-*"))).read_text()
    assert ("is adopted all the same" if taken else "is computed instead of adopting it") in log


def test_unfinished_work_of_other_code_is_gone_on_from_with_a_warning_only(overlay):
    overlay.order("rollouts", **{"raise": "the disk broke"}, once=True)
    assert overlay.launch(GRID[:1])[0] == 1
    path = overlay.root / "qup" / "stages" / "rollouts.py"
    path.write_text(path.read_text().replace("def plan(", "CHANGED = 1\n\n\ndef plan("))
    work = next((overlay.store / "rollouts").glob("*.work"))
    (shard,) = (work / "shards").glob("000000*")
    shard.unlink()
    overlay.order("rollouts", **{"raise": "again"}, once=True)
    overlay.launch([replace(one, study=replace(one.study, other_code="recompute")) for one in GRID[:1]])
    assert not shard.exists() and len(list(work.glob("code-*/shards/*"))) == 4, "what other code had begun is left alone"
    assert overlay.launch(GRID[:1])[0] == 0
    log = next(iter((overlay.store / "studies" / "test" / "logs").glob("rollouts-*"))).read_text()
    assert "was begun by other code of the same version, and goes on from there" in log


def test_arms_that_came_to_the_same_traces_are_trained_once(overlay):
    overlay.order("stream", same="equal traces")
    status, out = overlay.launch(GRID)
    assert status == 0, out
    counts = overlay.counts("ended")
    assert counts["stream"] == 2
    assert counts["train"] == 2
    adopted = [json.loads(path.read_text()) for path in (overlay.store / "train").glob("*/manifest.json")]
    assert len(adopted) == 4
    assert sum("adopted_from" in manifest for manifest in adopted) == 2
    everything = [json.loads(path.read_text()) for path in overlay.store.glob("*/*/manifest.json")]
    count = sum("adopted_from" in manifest for manifest in everything)
    assert f"{sum(counts.values())} stages ran, {count} adopted in " in out
    assert out.count("\nadopted ") == count


def test_a_store_that_spoils_whatever_is_written_is_an_error_in_the_end(tmp_path, monkeypatch):
    plan = make_plan([cell("base")], tmp_path / "study")
    plan.to_run.clear()
    monkeypatch.setattr(run, "make_plan", lambda resolved, folder: plan)
    monkeypatch.setattr(run, "_unreadable", lambda plan: [("evaluate", "k")])
    with pytest.raises(StoreError, match="corrupt again and again"):
        run.run_here(plan, [cell("base")], Console(quiet=True))
