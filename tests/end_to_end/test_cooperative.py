"""Traces that the student and the program Oracle write in turn, from a launch to training, beside native and aligned ones."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil

import pytest

from qup.store import Store
from tests.helpers.lab import cells, launch


@pytest.mark.timeout(900)
def test_cooperative_native_and_aligned_traces_stand_in_one_study(lab_small, tmp_path):
    folder = tmp_path / "lab"
    shutil.copytree(lab_small[0] / "store", folder / "store")
    arms = ("slm_rft", "style_aligned", "cooperative")
    status, out = launch(folder, "study.name=turns", "model=lab_foreign", "trainer=sft", f"stream={','.join(arms)}")
    assert status == 0, out
    rows = {row["stream"]: row for row in csv.DictReader(io.StringIO(cells(folder, "turns")))}
    assert set(rows) == set(arms)
    assert all(row["total"] != "" and row["steps"] != "" for row in rows.values()), rows
    assert len({row["n_train"] for row in rows.values()}) == 1

    record = json.loads((folder / "multirun" / "turns" / "study.json").read_text())
    store = Store(record["store"])
    stages = next(entry["stages"] for entry in record["cells"] if "/cooperative" in entry["label"])
    stream = store.get("stream", stages["stream"]).table("stream").to_pylist()
    assert stream
    for row in stream:
        spans = [row["text"][start:end] for start, end in zip([0, *row["turns"][:-1]], row["turns"], strict=True)]
        assert "".join(spans) == row["text"]
        assert not any(letter.isdigit() for span in spans[::2] for letter in span), "the student's spans hold no number"
        assert any(letter.isdigit() for span in spans[1::2] for letter in span)
    report = (folder / "multirun" / "turns" / "report" / "report.html").read_text()
    shown = json.loads(re.search(r'id="trace-data">(.*?)</script>', report, re.DOTALL)[1])
    by = [
        {token[3] for token in trace["tokens"]}
        for problem in shown[0]["problems"]
        for trace in problem["traces"]
        if "cooperative" in trace["arm"]
    ]
    assert by and all(writers == {0, 1} for writers in by)
