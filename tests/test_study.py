"""A study's record: written once, read by everyone."""

import json
import os
import shutil
from pathlib import Path

import pytest

from qup.errors import InputError
from qup.launch.console import command
from qup.pipeline.graph import Ref
from qup.study import Cell, Study, find_study

TRAIN = Ref("train", "a" * 20)
STREAM = Ref("stream", "b" * 20)


def study(root: Path, **changes) -> Study:
    cell = Cell("x", {"store": {"lease_s": 7.0}}, {"train": TRAIN.key, "stream": STREAM.key}, {}, (TRAIN,), ("y",))
    return Study(**{"name": "test", "cells": (cell,), "store": root / "store", "folder": root / "store" / "studies" / "test",
                    "nodes": {TRAIN: (STREAM,), STREAM: ()}, "again": {TRAIN: 1.5}, "grid": ("d",)} | changes)  # fmt: skip


def test_a_record_reads_back_as_it_was_written(tmp_path):
    made = study(tmp_path)
    made.save()
    assert Study.load(made.folder) == made
    assert Study.load(made.folder).open_store().lease_s == 7.0


def test_what_cells_have_in_common_is_written_once(tmp_path):
    shared = {"prompts": {"refine": "long " * 1000}}
    cells = tuple(Cell(f"c{n}", {"oracle": shared, "trainer": {"seed": n}, "store": {}}, {}, {"oracle": shared}) for n in range(100))
    made = study(tmp_path, cells=cells)
    made.save()
    assert Study.load(made.folder) == made
    assert (made.folder / "study.json").stat().st_size < 5 * 5000
    record = json.loads((made.folder / "study.json").read_text())
    for wrong in (1000, -1, True, "0", None):
        record["cells"][3]["config"]["oracle"] = wrong
        (made.folder / "study.json").write_text(json.dumps(record))
        with pytest.raises(InputError, match="not a study's record"):
            Study.load(made.folder)


def test_a_study_belongs_to_the_store_that_its_folder_lies_in(tmp_path):
    study(tmp_path).save()
    shutil.move(tmp_path / "store", tmp_path / "moved")
    found = Study.load(tmp_path / "moved" / "studies" / "test")
    assert found.store == tmp_path / "moved"
    assert [one.store.dir for one in found.configs()] == [str(tmp_path / "moved")]
    outside = study(tmp_path, folder=tmp_path / "multirun" / "test", dry_run=True)
    outside.save()
    assert Study.load(outside.folder).store == tmp_path / "store"


def test_identity_tells_stores_apart_and_not_the_ways_to_one(tmp_path):
    first, second = study(tmp_path / "a"), study(tmp_path / "b")
    assert first.identity != second.identity
    assert first.identity.startswith("test@") and " " not in first.identity
    first.store.mkdir(parents=True)
    (tmp_path / "way").symlink_to(tmp_path / "a")
    assert study(tmp_path / "way").identity == first.identity


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", json.dumps({"name": "x", "store": "s", "cells": [{"label": "a"}]})])
def test_what_is_no_record_is_a_clear_error(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(InputError, match="not a study's record"):
        Study.load(tmp_path)


def test_a_dry_run_is_no_study_for_what_needs_one_that_ran(tmp_path):
    study(tmp_path, folder=tmp_path / "multirun" / "test", dry_run=True).save()
    assert find_study("test", tmp_path / "multirun").dry_run
    with pytest.raises(InputError, match="a dry run, of which nothing has run"):
        find_study("test", tmp_path / "multirun", ran=True)


def test_a_command_is_told_as_it_must_be_typed_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("status", "test", Path("multirun")) == "qup status test"
    assert command("status", "test", tmp_path / "multirun") == "qup status test"
    assert command("wait", "test", tmp_path / "my results") == "qup --dir 'my results' wait test"
    assert command("wait", "test", Path(os.path.relpath(tmp_path.parent))) == "qup --dir .. wait test"
