"""The frozen code: what is code goes along, and what nobody runs is collected."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from qup.launch import snapshot
from qup.launch.commands import store as commands
from qup.store import Store


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    for name, size in (("qup/a.py", 10), ("conf/config.yaml", 10), ("mine.py", 10), ("models/weights.bin", 1000), ("data.json", 2 << 20)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"#" * size)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    monkeypatch.setattr(snapshot, "ROOT", root / "qup")
    return root


def test_data_beside_the_code_is_left_out_and_named(checkout: Path, tmp_path: Path) -> None:
    frozen = snapshot.freeze_code(Store(tmp_path / "store"))
    there = {path.relative_to(frozen.path).as_posix() for path in frozen.path.rglob("*") if path.is_file()}
    assert there - {".commit", ".diff"} == {"qup/a.py", "conf/config.yaml", "mine.py"}
    assert set(map(str, frozen.left_out)) == {"models/weights.bin", "data.json"}
    (checkout / "models" / "weights.bin").write_bytes(b"!")
    assert snapshot.freeze_code(Store(tmp_path / "store")).path == frozen.path, "data changes no code"


def test_gc_takes_the_code_that_no_study_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for name in ("used", "unused"):
        (tmp_path / "code" / name).mkdir(parents=True)
    site = tmp_path / "studies" / "one" / "slurm" / "site.json"
    site.parent.mkdir(parents=True)
    site.write_text(json.dumps({"code": str(tmp_path / "code" / "used")}), encoding="utf-8")
    commands.collect_garbage(store, Console(quiet=True), dry_run=False)
    assert len(list((tmp_path / "code").iterdir())) == 2, "nobody knows yet whether a launch froze it just now"
    monkeypatch.setattr(commands, "IN_USE_S", -1.0)
    commands.collect_garbage(store, Console(quiet=True), dry_run=False)
    assert [path.name for path in (tmp_path / "code").iterdir()] == ["used"]
