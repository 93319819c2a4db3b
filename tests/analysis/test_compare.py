"""Two studies side by side."""

from __future__ import annotations

import json
import re

import pytest
from rich.console import Console

from qup.analysis.compare import show_comparison
from qup.errors import InputError
from tests.analysis.world import ONE, World, build_study, lab_cells


def test_comparison_refuses_by_name_and_pairs_what_agrees(tmp_path, capsys) -> None:
    first, _ = build_study(tmp_path / "a", World(lab_cells(**ONE)), "one")
    second, _ = build_study(tmp_path / "b", World(lab_cells(**ONE, arms=("slm_rft",)), skills={"slm_rft": 2.0}), "two")
    other, _ = build_study(tmp_path / "c", World(lab_cells(**ONE, benchmarks={"easy": 61, "hard": 30})), "three")
    assert show_comparison(first, second, Console(width=140)) == 0
    out = capsys.readouterr().out
    assert re.search(r"slm_rft +SFT.*\]$", out, re.MULTILINE)
    assert re.search(r"base .*the same results$", out, re.MULTILINE), "equal outcomes of equal problems"
    assert "only in one: " in out
    with pytest.raises(InputError, match=r"benchmark easy differs: lab\.n 60 against 61$"):
        show_comparison(first, other, Console())


def test_other_fixed_problem_sets_and_other_prompts_are_not_compared(tmp_path) -> None:
    first, _ = build_study(tmp_path / "a", World(lab_cells(**ONE, arms=("slm_rft",))), "one")
    other, _ = build_study(tmp_path / "b", World(lab_cells(**ONE, arms=("slm_rft",)), problems=38), "two")
    with pytest.raises(InputError, match=r"fixed problem sets differ for lab_foreign: 40 problems against 38; 2 are .*p0038, p0039"):
        show_comparison(first, other, Console())
    same, store = build_study(tmp_path / "c", World(lab_cells(**ONE, arms=("slm_rft",))), "three")
    for artifact in list(store.artifacts()):
        if artifact.stage == "evaluate":
            path = artifact.path / "manifest.json"
            content = json.loads(path.read_text())
            content["metrics"]["template_hash"] = "f" * 64
            path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="prompts differ for lab_foreign under template"):
        show_comparison(first, same, Console())
