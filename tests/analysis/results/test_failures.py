"""What failed, and why."""

from __future__ import annotations

import json

from qup.analysis.findings.survey import survey
from qup.analysis.results.shelf import Shelf
from qup.study import Study
from tests.analysis.world import ONE, World, build_study, lab_cells, told


def failed(folder, kind: str, key: str, error: str, output: str = "") -> None:
    for part in ("failed", "logs"):
        (folder / part).mkdir(exist_ok=True)
    record = {"ref": [kind, key], "label": "a cell", "error": error, "corrupt": None, "time": 1.0}
    (folder / "failed" / f"{kind}-{key}.json").write_text(json.dumps(record))
    if output:
        (folder / "logs" / f"{kind}-{key}.log").write_text(output)


def test_a_failed_stage_is_named_with_its_reason_and_the_end_of_its_output(tmp_path) -> None:
    world = World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined")), skip=lambda node: node.kind in ("train", "evaluate"))
    folder, store = build_study(tmp_path, world)
    cells = Study.load(folder).cells
    train = cells[1].key("train")
    assert train is not None
    lines = [f"line {number}" for number in range(100)]
    failed(folder, *train, "ConfigError: trainer.lr=3: <too> large", "\n".join([*lines, "CUDA out of memory"]))
    (found,) = survey(Study.load(folder), Shelf(store)).failures
    assert (found.stage, found.why, found.cells) == ("train", "ConfigError: trainer.lr=3: <too> large", (cells[1].label,))
    assert found.tail.endswith("line 99\nCUDA out of memory")
    assert "line 80" not in found.tail
    page = told(folder, store)
    assert "What failed (1)" in page
    assert "trainer.lr=3: &lt;too&gt; large" in page


def test_what_was_mended_since_is_no_failure_and_a_broken_record_is_told(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft",))))
    train = Study.load(folder).cells[1].key("train")
    assert train is not None
    failed(folder, *train, "out of memory")
    (folder / "failed" / "train-0.json").write_text("{")
    made = survey(Study.load(folder), Shelf(store))
    assert made.failures == []
    assert any("train-0.json" in fault for fault in made.faults)
