"""The Setup block: what was run, from the cells and manifests."""

from __future__ import annotations

from dataclasses import replace

from qup.analysis.findings.survey import survey
from qup.analysis.results.shelf import Shelf
from qup.config.schema import Source
from qup.study import Study
from tests.analysis.world import World, build_study, lab_cells


def block(tmp_path, cells) -> dict[str, str]:
    folder, store = build_study(tmp_path, World(cells))
    study = replace(Study.load(folder), launched_by={"qup": "9.9", "commit": "abc"})
    return {line.name: "; ".join(line.told) for line in survey(study, Shelf(store)).setup}


def test_a_setting_that_varies_is_given_with_all_its_values(tmp_path) -> None:
    trainers = [{"lr": lr, "batch_size": 16} for lr in (2e-5, 5e-5)]
    made = block(tmp_path, lab_cells(arms=("slm_rft", "oracle_refined"), trainers=trainers, seeds=(0, 1)))
    assert "SFT or DFT, learning rate 2e-5 or 5e-5, batch of 16 examples" in made["Training"]
    assert "training 0, 1" in made["Seeds"]
    assert "lab_foreign solved 45 of 52 at least once, every arm has 40" in made["Problems"]
    assert "easy (60 problems) and hard (30 problems)" in made["Evaluation"]
    assert "lab_foreign: pretrained in the lab, exposure 0 %" in made["Students"]
    assert "torch" in made["Run"]
    assert "1970-01-01, qup 9.9, commit abc" in made["Run"]


def test_each_arm_is_told_in_a_sentence(tmp_path) -> None:
    cells = lab_cells(objectives=("sft",), students=(("lab_foreign", 0.0),))
    cells = [replace(one, source=Source(name="file", path="t.jsonl")) if one.stream.name == "numina_subset" else one for one in cells]
    arms = block(tmp_path, cells)["Arms"]
    assert "slm_rft: the student's own verified rollouts;" in arms
    assert "oracle_refined: the student's own verified rollouts, each repaired by the Oracle lab;" in arms
    assert "oracle_synthesized: solutions that the Oracle lab wrote from scratch" in arms
    assert "numina_subset: traces from the file t.jsonl" in arms
