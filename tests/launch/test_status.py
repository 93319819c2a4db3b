"""What `qup status` says below its table."""

from pathlib import Path

import pytest

from qup.cli import main
from qup.launch.registry import link_study
from qup.launch.status import StageStatus, StudyStatus
from qup.launch.watch import MOST_NOTES, notes
from qup.pipeline.graph import Ref
from qup.store import Store
from qup.study import Cell, Study


def look(*statuses: StageStatus) -> StudyStatus:
    return StudyStatus(Study("test", (), Path("store"), Path("store/studies/test")), {status.ref: status for status in statuses})


def test_what_failed_stands_before_what_was_cancelled_for_it_however_many_these_are() -> None:
    cancelled = [
        StageStatus(Ref("evaluate", f"{number:020}"), "cancelled", "a stage it depends on did not succeed") for number in range(60)
    ]
    failed = StageStatus(Ref("train", "f" * 20), "failed", "ran out of memory", "7")
    assert notes(look(*cancelled, failed)) == [
        f"failed    train/{'f' * 20} (job 7): ran out of memory",
        "cancelled 60 stages: a stage it depends on did not succeed",
    ]


def test_one_cancelled_stage_is_named_and_a_wait_with_a_reason_comes_after_failures() -> None:
    waiting = StageStatus(Ref("reward", "a" * 20), "queued", "ReqNodeNotAvail", "3")
    plain = StageStatus(Ref("reward", "b" * 20), "queued", "Priority", "4")
    lost = StageStatus(Ref("train", "c" * 20), "lost", "gone")
    cancelled = StageStatus(Ref("evaluate", "d" * 20), "cancelled", "by qup cancel", "5")
    assert notes(look(waiting, plain, cancelled, lost)) == [
        f"lost      train/{'c' * 20}: gone",
        f"queued    reward/{'a' * 20} (job 3): ReqNodeNotAvail",
        f"cancelled evaluate/{'d' * 20} (job 5): by qup cancel",
    ]


def test_a_long_list_says_how_much_it_leaves_out() -> None:
    failed = [StageStatus(Ref("train", f"{number:020}"), "failed", "no") for number in range(MOST_NOTES + 3)]
    lines = notes(look(*failed))
    assert len(lines) == MOST_NOTES + 1
    assert lines[-1] == "… and 3 more; --json has all"


def test_without_a_name_status_says_what_studies_there_are(tmp_path, capsys) -> None:
    store = Store(tmp_path / "store")
    (store.root / "evaluate" / "k1").mkdir(parents=True)
    (store.root / "evaluate" / "k1" / "manifest.json").write_text("{}")
    cells = tuple(Cell(label, {}, {}, wanted=(Ref("evaluate", key),)) for label, key in (("a", "k1"), ("b", "k2")))
    for folder, dry in ((store.studies / "real", False), (tmp_path / "multirun" / "tried", True)):
        Study(folder.name, cells, store.root, folder, dry_run=dry).save()
    link_study(tmp_path / "multirun", store.studies / "real")
    for command in (["--dir", str(tmp_path / "multirun"), "status"], ["status", "--dir", str(tmp_path / "multirun")]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert not ended.value.code
        *told, dry = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
        assert told == [["study", "cells", "done"], ["real", "2", "1"]]
        assert " ".join(dry) == "dry runs, of which nothing has run: tried"


def test_no_study_at_all_is_said(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--dir", str(tmp_path), "status"])
    assert ended.value.code == 1
    assert "no study is there" in capsys.readouterr().err
