"""Means that can be compared: over the same problems in every arm, and of responses drawn alike."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qup.analysis.findings.survey import survey
from qup.analysis.results import fitting
from qup.analysis.results.cells import cells_table
from qup.analysis.results.shelf import Shelf
from qup.store import Store
from qup.study import Study
from tests.analysis.world import World, build_study, lab_cells, reseal

ARMS = ("slm_rft", "oracle_refined")
FULL = 5
"""Problems whose trace is too long for the reward model, in the refined arm alone; the invented study has one more in both."""


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Store, dict[str, np.ndarray]]:
    """A study in which one arm's traces of the first problems get no score, and each arm's scores as written."""
    cells = lab_cells(ARMS, objectives=("sft", "dft"), students=(("lab_foreign", 0.0),))
    folder, store = build_study(tmp_path, World(cells, problems=40))
    scores = {}
    for cell in Study.load(folder).cells:
        if not cell.is_base:
            path = store.root / "reward" / cell.stages["reward"]["lab_steps"]
            table = pq.read_table(path / "scores.parquet")
            if cell.get("stream.name") == "oracle_refined":
                kept = np.arange(table.num_rows) >= FULL
                score = np.where(kept, np.asarray(table["score"]), np.nan)
                table = table.set_column(table.column_names.index("score"), "score", pa.array(score))
                table = table.set_column(table.column_names.index("fits"), "fits", pa.array(kept & np.asarray(table["fits"])))
                pq.write_table(table, path / "scores.parquet")
                reseal(path)
            scores[str(cell.get("stream.name"))] = np.asarray(table["score"])
    return folder, store, scores


def test_a_trace_too_long_in_one_arm_is_left_out_of_every_arms_mean(study: tuple[Path, Store, dict[str, np.ndarray]]) -> None:
    folder, store, scores = study
    common = {arm: float(np.mean(score[FULL:-1])) for arm, score in scores.items()}
    assert common["slm_rft"] != pytest.approx(float(np.nanmean(scores["slm_rft"])), abs=1e-6)
    found = survey(Study.load(folder), Shelf(store))
    for one in found.summaries:
        if not one.run.cell.is_base:
            assert one.rewards["lab_steps"].value == pytest.approx(common[one.run.arm.stream])
            assert one.left_out == {"lab_outcome": 1, "lab_steps": FULL + 1}
    assert any(f"mean rewards by lab_steps leave out {FULL + 1} problems in every arm" in fault for fault in found.faults)
    for row in cells_table(Study.load(folder), store):
        if row["stream"] == "base":
            assert row["reward_lab_steps"] is row["unscored_lab_steps"] is None
        else:
            assert row["reward_lab_steps"] == pytest.approx(common[row["stream"]])
            assert row["unscored_lab_steps"] == FULL + 1


def test_where_every_trace_has_a_score_none_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(ARMS, students=(("lab_foreign", 0.0),))))
    rewards = list((store.root / "reward").glob("*/manifest.json"))
    for path in rewards:
        manifest = json.loads(path.read_text())
        manifest["metrics"] |= {"n_unfit": 0, "mean": 0.25}
        path.write_text(json.dumps(manifest))
    monkeypatch.setattr(fitting, "Streams", None)
    assert len(rewards) == 4
    assert {row["reward_lab_steps"] for row in cells_table(Study.load(folder), store) if row["stream"] != "base"} == {0.25}


def _noted(store: Store, key: str, **metrics: Any) -> None:
    path = store.root / "evaluate" / key / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"] |= metrics
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("noted", "said"),
    [
        ({"template_hash": "b" * 64}, f"prompt templates differ: {'b' * 12} against {'a' * 12}"),
        ({"stop_ids": [2]}, r"stop ids differ: [2] against [2, 6]"),
        ({"sampling": {"temperature": 0.6, "top_p": 1.0}}, "sampling temperatures differ: 0.6 against 1.0"),
        ({"sampling": {"temperature": 1.0, "top_p": 0.9}}, "sampling.top_p differ: 0.9 against 1.0"),
        ({"sampling": {"temperature": 1.0, "top_p": 1.0, "seed": 8}}, ""),
    ],
)
def test_arms_whose_responses_were_drawn_otherwise_are_not_compared(tmp_path: Path, noted: dict[str, Any], said: str) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(ARMS, objectives=("sft",), students=(("lab_foreign", 0.0),))))
    for cell in Study.load(folder).cells:
        alike = {"template_hash": "a" * 64, "stop_ids": [2, 6], "sampling": {"temperature": 1.0, "top_p": 1.0, "seed": 1}}
        _noted(store, cell.stages["evaluate"], **(alike | (noted if cell.get("stream.name") == "oracle_refined" else {})))
    found = survey(Study.load(folder), Shelf(store))
    contrast = next(one for one in found.contrasts if (one.arm, one.question) == ("oracle_refined", "baseline"))
    assert contrast.fault == said
    assert (contrast.total is None) == bool(said)
    if said:
        assert any(said in fault for fault in found.faults)
    else:
        assert contrast.total is not None and math.isfinite(contrast.total.value)
