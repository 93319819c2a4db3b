"""The index over all studies of a folder, and the command that writes it."""

from __future__ import annotations

import re
import webbrowser

import pytest

from qup.analysis.page.index import write_index
from qup.analysis.report import build
from qup.cli import main
from tests.analysis.world import ONE, World, build_study, lab_cells


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A folder of links to three studies: reported, not reported, and with a report that is no report."""
    root = tmp_path_factory.mktemp("studies")
    shown = root / "multirun"
    shown.mkdir()
    for name in ("done", "waiting", "broken"):
        folder, store = build_study(root, World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined"))), name)
        (shown / name).symlink_to(folder)
        if name == "done":
            build(folder, store)
        if name == "broken":
            (folder / "report").mkdir()
            (folder / "report" / "summary.json").write_text("{}")
    return shown


def test_each_study_has_its_answer_and_a_link_that_leads_to_its_report(studies) -> None:
    page = write_index(sorted(studies.iterdir()), studies / "index.html")
    text = page.read_text(encoding="utf-8")
    (link,) = re.findall(r'href="([^"]+)"', text)
    assert (page.parent / link).is_file()
    assert "3 of 3 cells complete" in text
    assert "slm_rft, oracle_refined" in text
    assert "your own traces (slm_rft)" in text
    assert "No report yet: qup report waiting" in text
    assert "older qup: qup report broken" in text


def test_the_command_writes_it_and_opens_it(studies, monkeypatch, capsys) -> None:
    shown = []
    monkeypatch.setattr(webbrowser, "open", lambda url: shown.append(url) or True)
    with pytest.raises(SystemExit) as ended:
        main(["--dir", str(studies), "report", "--index", "--open"])
    assert ended.value.code == 0
    assert shown == [(studies / "index.html").resolve().as_uri()]


def test_a_report_of_nothing_says_what_to_name(studies, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--dir", str(studies), "report"])
    assert ended.value.code == 1
    assert "--index" in capsys.readouterr().err


def test_reports_written_elsewhere_are_found_beside_the_index(studies, tmp_path) -> None:
    """As with --out, for stores that one may only read."""
    (tmp_path / "waiting").mkdir()
    for name in ("summary.json", "report.html"):
        (tmp_path / "waiting" / name).write_bytes((studies / "done" / "report" / name).read_bytes())
    text = write_index([studies / "waiting"], tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'href="([^"]+)"', text) == ["waiting/report.html"]
