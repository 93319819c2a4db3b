"""The whole way with real stages, by the commands a user types."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from qup.launch.rehearsal import seen
from qup.store import Store
from qup.study import Study
from tests.analysis.world import World, build_study, lab_cells
from tests.faults.kill import disturbed
from tests.helpers.lab import ROOT, cells, launch

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def study(lab_small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    for name in ("store", "multirun"):
        shutil.copytree(lab_small[0] / name, folder / name, symlinks=True)
    return folder, lab_small[1]


def qup(folder, *args):
    done = subprocess.run(
        [sys.executable, "-m", "qup", *args],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_study_ends_with_a_row_for_each_cell(study):
    folder, _ = study
    rows = list(csv.DictReader(io.StringIO(cells(folder))))
    assert len(rows) == 22
    assert sum(row["stream"] == "base" for row in rows) == 2
    for row in rows:
        assert row["total"] != "", row["cell"]
        if row["stream"] != "base":
            for name in (
                "ppl",
                "ppl_q1",
                "ppl_q4",
                "rank_surprisal",
                "reward_lab_outcome",
                "reward_lab_steps",
                "train_nll_first",
                "steps",
                "n_train",
            ):
                assert row[name] != "", (row["cell"], name)
        assert (row["retention"] != "") == (row["stream"] not in ("base", "slm_rft"))


def test_what_a_rehearsal_would_tell_of_it(study):
    folder, _ = study
    told = seen(folder / "multirun" / "lab_small")
    by_kind = {line.split()[0]: line for line in told}
    assert set(by_kind) == {"rollouts", "verdicts", "candidates", "reward", "train", "responses"}
    assert re.search(r"\d+ responses, \d+% cut at the length limit, ended by <\S+> \d+×", by_kind["rollouts"])
    assert re.search(r"\d+% right, \d+% without an answer, \d+% undecided", by_kind["verdicts"])
    assert re.search(r"[\d,]+ tokens a second, \d\.\d GB of memory", by_kind["train"])
    assert re.search(r"scores \S+ to \S+, mean", by_kind["reward"])
    assert "dollars a problem" in by_kind["candidates"]


def test_results_that_the_reports_tests_invent_have_the_names_of_real_ones(study, tmp_path):
    """Else a report is tested on figures that no stage writes."""
    folder, _ = study
    real = {}
    for artifact in Store(json.loads((folder / "multirun" / "lab_small" / "study.json").read_text())["store"]).artifacts():
        real.setdefault(artifact.stage, set()).update(artifact.metrics)
    _, invented = build_study(tmp_path, World(lab_cells(), problems=8))
    for artifact in invented.artifacts():
        assert set(artifact.metrics) <= real[artifact.stage], artifact.stage


def test_all_arms_of_a_student_cover_the_same_problems_in_the_same_order(study):
    folder, _ = study
    found = Study.load(folder / "multirun" / "lab_small")
    store = found.open_store()
    by_student = {}
    for entry in found.cells:
        if "stream" in entry.stages:
            ids = store.get("stream", entry.stages["stream"]).table("stream", ["problem_id"])["problem_id"].to_pylist()
            by_student.setdefault(entry.get("model.name"), set()).add(tuple(ids))
    assert len(by_student) == 2
    assert all(len(sets) == 1 for sets in by_student.values())


def test_slm_rft_keeps_the_trace_that_the_oracle_refines(study):
    folder, _ = study
    record = json.loads((folder / "multirun" / "lab_small" / "study.json").read_text())
    store = Store(record["store"])
    entry = next(entry for entry in record["cells"] if "/slm_rft/" in entry["label"])
    kept = dict(
        zip(
            *(store.get("solvable", entry["stages"]["solvable"]).table("solvable")[name].to_pylist() for name in ("problem_id", "kept")),
            strict=True,
        )
    )
    stream = store.get("stream", entry["stages"]["stream"]).table("stream").to_pylist()
    assert {row["problem_id"]: row["candidate"] for row in stream} == {
        problem: kept[problem] for problem in (row["problem_id"] for row in stream)
    }


def test_a_second_run_computes_nothing_and_says_so(study):
    folder, _ = study
    before = cells(folder)
    status, out = launch(folder)
    assert status == 0, out
    assert "nothing was computed" in out
    assert cells(folder) == before


def test_the_console_command_finds_its_way(study):
    folder, _ = study
    status, out = qup(folder, "status", "lab_small")
    assert status == 0, out
    assert "lab_foreign/slm_rft/sft" in out
    status, out = qup(folder, "explain", "lab_foreign/slm_rft/sft")
    assert status == 0, out
    assert out.count("stored") > 10
    status, out = qup(folder, "store", "--store", "store", "verify")
    assert status == 0, out
    status, out = qup(folder, "store", "--store", "store", "gc", "--dry-run")
    assert "0 would go" in out
    status, out = qup(folder, "logs", "lab_foreign/slm_rft/sft", "train")
    assert status == 0, out


def test_any_setting_from_the_command_line_makes_only_what_it_changes(study):
    folder, _ = study
    status, out = launch(folder, "study.name=other", "trainer.lr=0.002", "study.dry_run=true")
    assert status == 0, out
    plan = json.loads((folder / "multirun" / "other" / "plan.json").read_text())
    assert {stage["name"] for stage in plan["stages"] if stage["state"] == "run"} == {"train", "responses", "evaluate"}


def test_what_an_oracle_will_take_is_told_by_the_problems_counted_where_they_are(study):
    folder, _ = study
    status, out = launch(folder, "study.name=priced", "study.dry_run=true", "oracle.seed=5", "oracle.usd_per_million_output=1e6")
    assert status == 0, out
    plan = json.loads((folder / "multirun" / "priced" / "plan.json").read_text())
    solvable = {
        path.parent.name: json.loads(path.read_text())["metrics"] for path in (folder / "store" / "solvable").glob("*/manifest.json")
    }
    asked = [stage for stage in plan["stages"] if stage["name"] == "candidates" and stage["state"] == "run"]
    assert len(asked) == 6
    for stage in asked:
        assert stage["cost"]["units"] == solvable[stage["inputs"]["solvable"].partition("/")[2]]["n_solvable"] > 0
        assert stage["cost"]["oracle_usd"] > stage["cost"]["units"]
    assert all(stage["cost"]["units"] > 0 for stage in plan["stages"] if stage["state"] == "run")


def test_kills_at_random_instants_change_no_byte_of_the_table(study, tmp_path):
    folder, _ = study
    assert set(disturbed(tmp_path, kills=3, seed=1, longest_s=25.0)) == {cells(folder)}
