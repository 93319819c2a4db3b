"""In a locale without UTF-8 a launch and its status say what they can."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.helpers.cells import cell
from tests.helpers.overlay import Overlay


def test_a_locale_without_utf_8_costs_characters_and_nothing_else(tmp_path: Path) -> None:
    overlay = Overlay(tmp_path)
    overlay.env |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    one = cell()
    status, out = overlay.launch([replace(one, model=replace(one.model, name="Schüler→学生"))])
    assert status == 0 and "Traceback" not in out, out
    record = json.loads((overlay.store / "studies" / "test" / "study.json").read_text(encoding="utf-8"))
    assert record["cells"][0]["label"].startswith("Schüler→学生")
    for command in (["status", "test"], ["explain", "0", "--study", "test"], ["store", "ls"], ["report", "test"]):
        status, out = overlay.qup(*command)
        assert status == 0 and "Traceback" not in out, f"{command}: {out}"
        assert command[0] != "status" or ("+ stored" in out and "? stored" not in out), "a question mark stands for a lost stage"
