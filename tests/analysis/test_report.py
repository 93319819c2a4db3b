"""The report as a whole: complete, deterministic, and useful where results are missing or odd."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from qup.analysis.report import build
from qup.errors import InputError, StoreError
from qup.launch.results import finish
from qup.store import Store
from qup.study import Study
from tests.analysis.world import ONE, World, build_study, content, lab_cells, reseal, told


def test_everything_promised_is_written(lab) -> None:
    out = lab[2].parent
    assert {path.name for path in out.iterdir()} == {"report.html", "cells.csv", "summary.json", "figures", "tables"}
    figures, tables = sorted((out / "figures").iterdir()), sorted((out / "tables").iterdir())
    assert {path.suffix for path in figures} == {".svg", ".png"}
    assert len(figures) == 2 * len({path.stem for path in figures})
    assert {path.suffix for path in tables} == {".csv", ".md", ".tex"}
    assert {
        "arms",
        "contrasts",
        "benchmarks",
        "segments",
        "tokens",
        "token_shift",
        "correlations",
        "training",
        "losses",
        "costs",
        "provenance",
    } <= {p.stem for p in tables}
    summary = json.loads((out / "summary.json").read_text())
    assert [one["student"] for one in summary["verdicts"]] == ["lab_foreign", "lab_familiar"]
    assert summary["toy_world"] is True


def test_two_builds_are_the_same_bytes(lab, tmp_path) -> None:
    again = build(lab[0], lab[1], tmp_path / "again")
    for path in sorted(lab[2].parent.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again.parent / path.relative_to(lab[2].parent)).read_bytes(), path.name


def test_a_running_study_is_reported_with_what_is_missing(tmp_path) -> None:
    world = World(lab_cells(**ONE), skip=lambda node: node.kind in ("evaluate", "retention") and "refined" in node.label)
    folder, store = build_study(tmp_path, world)
    page = build(folder, store)
    assert page == folder / "report" / "report.html"
    assert "cells lack results" in content(page)
    assert "not measured" in content(page)
    rows = list(csv.DictReader((page.parent / "cells.csv").open()))
    assert next(row["missing"] for row in rows if row["stream"] == "oracle_refined") == "retention evaluate"


@pytest.mark.parametrize(
    "kinds", [("train",), ("perplexity",), ("reward",), ("stream",), ("evaluate", "train", "reward", "perplexity", "stream")]
)
def test_any_stage_may_be_missing(kinds, tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined")), skip=lambda node: node.kind in kinds))
    assert "lack results" in told(folder, store)


def test_an_empty_store_and_a_study_of_nothing(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE), skip=lambda node: True))
    assert "Not answered yet: nothing is trained and evaluated." in content(build(folder, store))
    with pytest.raises(InputError, match=r"study\.json"):
        build(tmp_path, store)


def test_a_store_that_was_moved_is_read_where_it_is(tmp_path) -> None:
    build_study(tmp_path / "a", World(lab_cells(**ONE, arms=("slm_rft",))))
    shutil.move(tmp_path / "a" / "store", tmp_path / "elsewhere")
    store = Store(tmp_path / "elsewhere")
    assert "2 of 2 cells complete" in told(store.studies / "test", store)


def test_a_corrupt_artifact_counts_as_missing_and_is_named(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined"))))
    artifact = (
        next(store.artifacts_of("evaluate"))
        if hasattr(store, "artifacts_of")
        else next(a for a in store.artifacts() if a.stage == "evaluate")
    )
    target = artifact.path / "verdicts.parquet"
    data = bytearray(target.read_bytes())
    data[100] ^= 255
    target.write_bytes(data)
    assert f"evaluate/{artifact.key} cannot be read" in told(folder, store)
    assert artifact.path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_another_users_folder_is_a_clear_error(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft",))))
    folder.chmod(0o555)
    try:
        with pytest.raises(StoreError, match="--out"):
            build(folder, store)
    finally:
        folder.chmod(0o755)


def test_a_place_that_is_no_folder_is_a_clear_error(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft",))))
    (tmp_path / "file").write_text("")
    for make in (partial(build, folder, store), partial(finish, Study.load(folder), Console(quiet=True))):
        with pytest.raises(StoreError, match="--out"):
            make(out=tmp_path / "file")


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (("slm_rft",), "a single arm"),
        (("oracle_refined", "style_aligned"), "the baseline slm_rft is not among the arms"),
        ((), "No cell is trained"),
    ],
)
def test_odd_studies_say_what_they_lack(arms, said, tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=arms)))
    assert said in told(folder, store)


def test_no_variance_and_small_benchmarks_are_told(tmp_path) -> None:
    world = World(
        lab_cells(**ONE, arms=("slm_rft", "oracle_refined"), benchmarks={"tiny": 30}),
        skills={"base": -90, "slm_rft": 90, "oracle_refined": 90},
    )
    page = told(*build_study(tmp_path, world))
    assert "tiny (30 problems)" in page
    assert "exact binomial bound" in page


def test_scores_that_are_no_numbers_are_left_out_and_counted(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined"))))
    artifact = next(a for a in store.artifacts() if a.stage == "reward")
    table = pq.read_table(artifact.path / "scores.parquet")
    scores = table["score"].to_pylist()
    scores[:3] = [math.nan, math.inf, math.nan]
    pq.write_table(table.set_column(table.column_names.index("score"), "score", pa.array(scores)), artifact.path / "scores.parquet")
    reseal(artifact.path)
    assert "reward scores are no finite numbers" in told(folder, store)
