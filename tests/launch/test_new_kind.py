"""What it takes to add a stage kind: its module, its view, and a line each in kinds and build. Nothing else knows the kinds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qup.config.schema import Oracle
from tests.helpers.cells import cell
from tests.helpers.overlay import PLAIN, ROOT, Overlay

JUDGE = Oracle(name="gpt", backend="openai", model="gpt", seed=0, api_key_env="QUP_TEST_JUDGE_KEY")
VIEW = '''

@dataclass(frozen=True)
class ToyView:
    """Inputs: stream. File `result.txt`."""

    judge: Oracle
    max_usd: float | None = field(default=None, metadata=RUNTIME)
'''
KIND = """Kind("toy", views.ToyView, "retention", row=True, endpoint="judge", seconds=(3.0, 3.0), asks=lambda node, sizes, _: (1.0, 1.0, 1.0)),
        Kind("retention","""
BUILD = """
        stages["toy"] = graph.add("toy", views.ToyView(arm.cell.judge), {"stream": stages["stream"]}, label=label)
        wanted = wanted_of(stages)
"""


def swap(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path}: {old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    made = Overlay(tmp_path)
    qup = made.root / "qup"
    (qup / "stages" / "toy.py").write_text(PLAIN.format(kind="toy"), encoding="utf-8")
    with (qup / "config" / "views.py").open("a", encoding="utf-8") as views:
        views.write(VIEW)
    swap(qup / "pipeline" / "kinds.py", 'Kind("retention",', KIND)
    swap(qup / "pipeline" / "build.py", "\n        wanted = wanted_of(stages)\n", BUILD)
    return made


def test_a_new_kind_is_planned_run_told_and_reported_without_a_further_change(overlay: Overlay) -> None:
    cells = [cell("slm_rft", judge=JUDGE)]
    status, out = overlay.launch(cells)
    assert status == 1
    assert "judge.api_key_env='QUP_TEST_JUDGE_KEY'" in out and "toy lab_foreign/slm_rft" in out, "its endpoint's key is looked for"
    overlay.env["QUP_TEST_JUDGE_KEY"] = "a key"
    status, out = overlay.launch(cells)
    assert status == 0, out
    assert [run["kind"] for run in overlay.runs() if run["kind"] == "toy"] == ["toy"]
    key = next(run["key"] for run in overlay.runs() if run["kind"] == "toy")
    for command, told in ((["status", "test"], "toy"), (["explain", "0", "--study", "test"], f"toy/{key}"), (["store", "ls"], "toy")):
        status, out = overlay.qup(*command)
        assert status == 0 and told in out, f"{command}: {out}"
    shutil.rmtree(overlay.root / "qup" / "analysis")
    shutil.copytree(ROOT / "qup" / "analysis", overlay.root / "qup" / "analysis", ignore=shutil.ignore_patterns("__pycache__"))
    status, out = overlay.qup("report", "test")
    assert status == 0, out
    assert any(key in path.read_text(encoding="utf-8") for path in (overlay.store / "studies" / "test" / "report").glob("*.html"))
    shutil.rmtree(overlay.store / "toy")
    status, out = overlay.qup("status", "test")
    assert status == 0 and "toy" in out, out
