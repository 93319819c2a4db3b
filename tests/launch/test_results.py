"""A study's end: the report is built once for the same results, and anew wherever it would come out otherwise."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from qup.files import write_json
from qup.launch import results
from qup.study import Study
from tests.analysis.world import World, build_study, lab_cells

ONE = {"objectives": ("sft",), "students": (("lab_foreign", 0.0),), "arms": ("slm_rft",)}


@pytest.fixture
def finish(tmp_path, monkeypatch):
    """Finishes the study and returns (its totals, whether anything was built)."""
    folder, _ = build_study(tmp_path, World(lab_cells(**ONE)))
    built = []
    monkeypatch.setattr(results, "_build", lambda *args: built.append(1) or _light(*args))

    def run():
        built.clear()
        return results.finish(Study.load(folder), Console(quiet=True)), bool(built)

    run.study = Study.load(folder)
    return run


def _light(study, store, out):
    """The rows and a page, without the figures that take the time."""
    from qup.analysis.results.cells import cells_table

    out.mkdir(exist_ok=True)
    (out / "report.html").write_text("page")
    return cells_table(study, store)


def test_a_second_finish_builds_nothing_and_returns_the_same(finish):
    first, built = finish()
    assert built and all(total is not None for total in first.values())
    assert finish() == (first, False)


def _result(study: Study) -> Path:
    return next(study.store.glob("evaluate/*/manifest.json"))


@pytest.mark.parametrize("what", ["result", "record", "failure", "edited page", "page gone", "note torn"])
def test_whatever_would_change_the_report_has_it_built_anew(finish, what):
    finish()
    out = finish.study.folder / "report"
    match what:
        case "result":
            manifest = json.loads(_result(finish.study).read_text())
            write_json(_result(finish.study), manifest | {"host": "elsewhere"})
        case "record":
            (finish.study.folder / "study.json").write_text((finish.study.folder / "study.json").read_text() + "\n")
        case "failure":
            write_json(finish.study.folder / "failed" / "train-k.json", {"ref": ["train", "k"], "error": "no"})
        case "edited page":
            (out / "report.html").write_text("mine")
        case "page gone":
            (out / "report.html").unlink()
        case "note torn":
            (out / results.MADE_OF).write_text("{")
    assert finish()[1]
    assert not finish()[1]


def test_other_code_has_the_report_built_anew(finish, monkeypatch, tmp_path):
    finish()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "page.j2").write_text("new")
    monkeypatch.setattr(results, "ROOT", tmp_path / "code")
    assert finish()[1]
