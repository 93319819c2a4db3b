"""A study as a notebook sees it: tables that agree with the store, and errors that name what there is."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qup
from qup.analysis.results.cells import cells_table
from qup.errors import InputError, StoreError
from qup.notebook import OpenStudy
from tests.notebook.conftest import PROBLEMS, built

ROOT = Path(__file__).resolve().parents[2]
SFT = "lab_foreign/slm_rft/sft"


def test_importing_qup_imports_the_standard_library_alone_and_takes_no_time():
    code = (
        "import sys, time; before = set(sys.modules); began = time.process_time(); import qup; spent = time.process_time() - began\n"
        "new = {name for name in set(sys.modules) - before if name.partition('.')[0] not in sys.stdlib_module_names}\n"
        "assert new == {'qup'}, new\n"
        "assert spent < 0.1, spent"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=True)


def test_opening_a_study_imports_nothing_heavy(launched):
    code = "import sys, qup; qup.open('lab'); print(sorted({'torch', 'transformers', 'datasets', 'pandas', 'scipy', 'matplotlib', 'wandb'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=launched, capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert done.stdout == "[]\n"


def test_the_page_runs_as_it_stands(launched, monkeypatch):
    monkeypatch.chdir(launched)
    text = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 6
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"notebook.md, block {number}", "exec"), names)  # what a reader would type


def test_the_page_shows_every_table():
    text = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    public = [name for name in vars(OpenStudy) if not name.startswith("_") and name not in ("find", "name")]
    assert len(public) == 9
    assert [name for name in public if f"study.{name}" not in text] == []


def test_cells_are_those_of_the_csv(study):
    rows = cells_table(study.study, study.study.open_store())
    made = study.cells()
    assert made["cell"].tolist() == study.labels
    assert made["total"].tolist() == [row["total"] for row in rows]


def test_an_arm_has_its_interval_around_its_total(study):
    arms = study.arms()
    assert set(arms["arm"]) == {"base", "slm_rft", "oracle_refined"}
    assert (arms["total_low"] < arms["total"]).all() and (arms["total"] < arms["total_high"]).all()
    (cells,) = arms.query("student == 'lab_foreign' and arm == 'slm_rft' and setting == 'SFT'")["cells"]
    assert cells == [SFT]


def test_a_contrast_is_the_difference_of_its_arms(study):
    arms = study.arms().set_index(["student", "setting", "arm"])["total"]
    found = study.contrasts().query("question == 'baseline'")
    assert len(found) == 4
    for one in found.itertuples():
        assert one.total == pytest.approx(arms[one.student, one.setting, one.arm] - arms[one.student, one.setting, one.other])
        assert one.total_low < one.total < one.total_high
        assert one.p <= one.p_holm <= 1


def test_traces_have_the_verdict_of_their_own_candidate(study):
    traces = study.traces(SFT)
    assert traces["problem_id"].tolist() == [f"p{i:04d}" for i in range(PROBLEMS)]
    assert traces["extracted"].tolist()[:-1] == [f"{i}/0" for i in range(PROBLEMS - 1)]
    assert set(traces["verdict"][:-1]) == {"equal"}
    assert traces["verdict"].isna().tolist() == [False] * (PROBLEMS - 1) + [True], "the last has no candidate in the pool"


def test_traces_have_their_scores_and_ratings(study):
    traces = study.traces(SFT)
    for name in ("lab_steps", "lab_outcome"):
        scores = study.artifact("reward", SFT, name=name).table("scores").to_pandas()
        np.testing.assert_array_equal(traces[f"reward_{name}"], scores["score"])
    totals = study.artifact("perplexity", SFT).table("totals").to_pandas()
    np.testing.assert_allclose(traces["ppl"], np.exp(totals["nll"] / totals["n_tokens"]))
    rating = study.artifact("retention", SFT).table("retention")["rating"].to_pylist() if study.study.find(SFT).key("retention") else None
    assert (traces["retention"].tolist() == rating) if rating else "retention" not in traces


def test_an_arm_stands_for_its_cells_where_they_share_the_traces(study):
    assert study.traces("lab_foreign/slm_rft").equals(study.traces(SFT))
    assert study.traces("lab_foreign/slm_rft/").equals(study.traces(study.labels.index(SFT)))


def test_outcomes_are_problems_by_samples_and_average_to_the_table(study):
    right = study.outcomes(SFT)
    assert right.shape == (12 + 8 - 3, 4)
    assert right.index.get_level_values("problem_id")[:3].tolist() == ["easy-0", "easy-1", "easy-2"], "in the benchmark's order"
    averages = 100 * right.mean(axis=1).groupby("benchmark").mean()
    row = study.cells().set_index("cell").loc[SFT]
    assert averages["easy"] == pytest.approx(row["easy"]) and averages["hard"] == pytest.approx(row["hard"])


def test_problems_kept_apart_are_given_when_asked_for(study):
    assert study.outcomes(SFT, dev=True).index.tolist() == [("hard", f"hard-{i}") for i in range(3)]


def test_the_plan_of_a_finished_study_runs_nothing(study):
    plan = study.plan()
    assert set(plan["state"]) <= {"stored", "not needed"}
    assert len(plan) == len(study.study.nodes)


def test_the_status_of_a_finished_study_is_stored(study):
    status = study.status()
    assert set(status["state"]) == {"stored"}
    assert list(dict.fromkeys(status["cell"])) == study.labels
    assert status.attrs == {"ended": True, "good": True, "slurm": "", "driver": ""}


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory) -> OpenStudy:
    root = built(tmp_path_factory.mktemp("unfinished"), skip=lambda node: node.kind in ("evaluate", "reward"))
    return qup.open("lab", root / "multirun")


def test_an_unfinished_study_shows_what_there_is(unfinished):
    assert unfinished.cells()["missing"].str.contains("evaluate").all()
    assert unfinished.arms()["total"].isna().all()
    assert (unfinished.contrasts()["fault"] != "").all()
    assert not [name for name in unfinished.traces(SFT) if name.startswith("reward")]
    assert set(unfinished.plan().query("state == 'run'")["stage"]) == {"evaluate", "reward"}
    assert set(unfinished.status().query("state != 'stored'")["stage"]) == {"evaluate", "reward"}
    with pytest.raises(StoreError, match=r"evaluate/\w+ of cell 'lab_foreign/slm_rft/sft': not stored yet; of this cell there is .*train"):
        unfinished.outcomes(SFT)


def _total(study: OpenStudy) -> float:
    arms = study.arms()
    return arms[[cells == [SFT] for cells in arms["cells"]]]["total"].item()


def test_what_came_since_is_seen_by_the_same_object(tmp_path):
    root = built(tmp_path)
    study = qup.open("lab", root / "multirun")
    moved = study.artifact("evaluate", SFT).path
    moved.rename(root / "kept")
    before = _total(study)
    (root / "kept").rename(moved)
    after = _total(study)
    assert math.isnan(before) and after > 0


def test_a_plan_leaves_what_is_corrupt_where_it_is(tmp_path):
    study = qup.open("lab", built(tmp_path) / "multirun")
    artifact = study.artifact("evaluate", SFT)
    (artifact.path / "verdicts.parquet").write_bytes(b"cut")
    plan = study.plan().set_index(["stage", "key"])
    assert plan.loc[("evaluate", artifact.key), "state"] == "run"
    assert (artifact.path / "verdicts.parquet").read_bytes() == b"cut"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda study: study.outcomes("lab_foreign/slm_rft"), "several whose evaluate differs: lab_foreign/slm_rft/sft, lab_foreign/slm_rft/dft"),
        (lambda study: study.traces("nope"), "not in study lab; there are lab_foreign/base"),
        (lambda study: study.traces(99), "or a number below 10"),
        (lambda study: study.traces("lab_foreign/base"), "trained on no traces; of those that are, there are lab_foreign/slm_rft/sft"),
        (lambda study: study.artifact("rewards", SFT), "has no such stage; it has aligned, candidates, evaluate, "),
        (lambda study: study.artifact("reward", SFT), "has several; give name=, one of lab_"),
        (lambda study: study.artifact("reward", SFT, "mine"), "name='mine' is not there; there are lab_"),
        (lambda study: study.artifact("train", SFT, "mine"), "name='mine' is not there; it has one, without a name"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_answered_by_those_there_are(study, call, told):
    with pytest.raises(InputError, match=re.escape(told)):
        call(study)


def test_a_study_that_is_not_there_is_answered_by_those_that_are(launched, tmp_path):
    with pytest.raises(InputError, match=r"'other': not found under .*; there are lab"):
        qup.open("other", launched / "multirun")
    with pytest.raises(InputError, match=r"no study is in .*dir="):
        qup.open("lab", tmp_path)
    assert qup.open(launched / "multirun" / "lab").name == "lab"
