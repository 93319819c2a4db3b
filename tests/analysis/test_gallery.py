"""Pictures in documents belong to the numbers beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qup.analysis.gallery import LIST, fault, main, noted, take
from qup.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
FROM_LONG_RUNS = {"exposure.png", "joint-frontier.png", "joint-lambda.png"}
"""Made by runs of over half an hour before pictures carried their tables; each leaves this list when it is made again."""


def linked() -> set[str]:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return {Path(one).name for page in pages for one in re.findall(r"\]\(([^)]+\.png)\)", page.read_text(encoding="utf-8"))}


def test_every_picture_of_the_docs_is_linked_and_named_in_the_list() -> None:
    there = {path.name for path in IMAGES.glob("*.png")}
    assert there == linked() == set(json.loads((IMAGES / LIST).read_text(encoding="utf-8")))


def test_pictures_of_the_docs_were_drawn_from_the_tables_beside_them() -> None:
    faults = {path.name: why for path in IMAGES.glob("*.png") if (why := fault(path))}
    assert set(faults) == FROM_LONG_RUNS, faults


@pytest.fixture(scope="module")
def taken(lab, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("docs") / "shown.png"
    take(lab[2].parent, "reward_lab_foreign", target)
    return target


def test_a_picture_says_of_which_study_and_table_it_is(taken) -> None:
    assert fault(taken) == ""
    said = noted(taken)
    assert (said["study"], said["figure"], said["table"]) == ("test", "reward_lab_foreign", "arms")
    assert "oracle_refined" in taken.with_suffix(".csv").read_text(encoding="utf-8")


def test_a_number_changed_in_the_table_is_found(taken, tmp_path) -> None:
    picture = tmp_path / "shown.png"
    picture.write_bytes(taken.read_bytes())
    assert "is not beside it" in fault(picture)
    table = taken.with_suffix(".csv").read_text(encoding="utf-8")
    picture.with_suffix(".csv").write_text(table.replace("1", "2", 1), encoding="utf-8")
    assert "is not the table that it was drawn from" in fault(picture)


def test_the_command_takes_what_the_list_names(lab, tmp_path, capsys) -> None:
    (tmp_path / "multirun").mkdir()
    study = tmp_path / "multirun" / "test"
    study.symlink_to(lab[0])
    if not (lab[0] / "report").exists():
        (lab[0] / "report").symlink_to(lab[2].parent)
    (tmp_path / LIST).write_text(json.dumps({"a.png": ["test", "forest_lab_foreign"], "b.png": ["other", "x"]}))
    shown = [str(tmp_path), "--dir", str(tmp_path / "multirun")]
    assert main([*shown, "--only", "a.png"]) == 0
    assert fault(tmp_path / "a.png") == ""
    assert main(shown) == 1
    assert "'other': not found" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"has no figure 'nix'; there are .*forest_lab_foreign"):
        take(lab[2].parent, "nix", tmp_path / "c.png")
