"""What `qup status` shows: its table, and what it says below."""

from pathlib import Path

import pytest

from qup.cli import main
from qup.launch.console import make_console
from qup.launch.local.board import Board, StageState
from qup.launch.registry import link_study
from qup.launch.states import show_states
from qup.launch.status import StageStatus, StudyStatus
from qup.launch.units import left_in_words, remaining
from qup.launch.watch import MOST_NOTES, MOST_RUNNING, at_work, notes
from qup.pipeline import KINDS
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


def grid(cells: int = 12, state: str = "stored", **others: str) -> StudyStatus:
    """Cells with a stage of every kind, of which the first is of another state for the kinds that are named."""
    labels = [f"qwen2_5_math_1_5b/oracle_synthesized/dft/lr=5e-05/seed={number}" for number in range(cells)]
    made = []
    stages = {}
    for number, label in enumerate(labels):
        refs = [Ref(kind, f"{kind}-{number}") for kind in KINDS]
        made.append(Cell(label, {}, {ref.kind: ref.key for ref in refs}))
        for ref in refs:
            found = others.get(ref.kind, state) if number == 0 else state
            stages[ref] = StageStatus(ref, found, "40/60 steps, 12 s left" if found == "running" else "")
    return StudyStatus(Study("test", tuple(made), Path("store"), Path("store/studies/test")), stages)


@pytest.mark.parametrize("width", [120, 80, 60])
def test_a_row_a_cell_whatever_the_width(width: int) -> None:
    lines = show_states(grid(train="running", evaluate="failed"), width).plain.splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines if line.lstrip()[:1].isdigit() or line.startswith(" 0")]
    assert [row[0] for row in rows] == [str(number) for number in range(12)]
    assert all(row[1].endswith(f"seed={number}") and row[1].startswith("qwen2") for number, row in enumerate(rows))
    glyphs = ["".join(row[2:]) for row in rows]
    order = list(KINDS)
    assert glyphs[1] == "✓" * len(KINDS)
    assert glyphs[0][order.index("train")] == ">" and glyphs[0][order.index("evaluate")] == "X"
    assert glyphs[0].count("✓") == len(KINDS) - 2


def test_the_legend_names_the_stages_and_states_that_there_are_and_no_others() -> None:
    told = " ".join(show_states(grid(train="running"), 60).plain.split())
    for place, kind in enumerate(KINDS):
        assert f"{chr(ord('a') + place)} {kind}" in told
    assert "✓ stored > running" in told and "failed" not in told


def test_a_stage_that_a_cell_does_not_have_leaves_its_place_empty() -> None:
    seen = grid(1)
    del seen.stages[Ref("train", "train-0")]
    shown = show_states(StudyStatus(seen.study, {**seen.stages, **grid(2).stages}), 200).plain
    assert shown.count("✓") > len(KINDS)
    row = next(line for line in show_states(seen, 200).plain.splitlines() if line.startswith("0 "))
    assert row.count("✓") == len(KINDS) - 1


def test_of_several_stages_of_a_kind_the_worst_is_shown_and_another_studys_job_is_told_apart() -> None:
    refs = [Ref("reward", name) for name in "ab"]
    cell = Cell("one", {}, {"reward": {"x": "a", "y": "b"}})
    study = Study("test", (cell,), Path("store"), Path("store/studies/test"))
    seen = StudyStatus(study, {refs[0]: StageStatus(refs[0], "stored"), refs[1]: StageStatus(refs[1], "running", shared=True)})
    assert "0 one o" in show_states(seen, 80).plain
    seen.stages[refs[0]] = StageStatus(refs[0], "failed")
    assert "0 one X" in show_states(seen, 80).plain


def test_a_terminal_with_few_lines_shows_the_cells_that_are_at_work() -> None:
    seen = grid(60)
    ref = Ref("train", "train-41")
    seen.stages[ref] = StageStatus(ref, "running", "3/9 steps, 4 s left")
    lines = show_states(seen, 80, 20).plain.splitlines()
    assert len(lines) <= 20
    assert any(line.startswith("41 ") for line in lines)
    rows = sum(line[:3].strip().isdigit() for line in lines)
    assert f"… {60 - rows} more cells" in lines


def test_without_utf_8_there_are_glyphs_all_the_same() -> None:
    shown = show_states(grid(state="waiting", train="stored"), 40, in_ascii=True).plain
    assert shown.isascii() and "+ stored" in shown and ". waiting" in shown


def test_what_runs_is_told_with_its_cell_and_no_more_of_it_than_a_screen_takes() -> None:
    assert at_work(grid(train="running")) == [
        "running train qwen2_5_math_1_5b/oracle_synthesized/dft/lr=5e-05/seed=0: 40/60 steps, 12 s left"
    ]
    lines = at_work(grid(state="running"))
    assert len(lines) == MOST_RUNNING + 1 and lines[-1] == f"… and {12 * len(KINDS) - MOST_RUNNING} more run"


@pytest.mark.parametrize(
    ("spent", "share", "expected", "said"),
    [
        (10.0, 0.0, 70.0, "1:00 min left"),
        (70.0, 0.0, 70.0, "longer than estimated"),
        (99.0, 0.01, 70.0, "longer than estimated"),
        (99.0, 0.5, 70.0, "1:39 min left"),
        (99.0, 1.0, 70.0, "finishing"),
    ],
)
def test_an_estimate_that_has_run_out_says_so(spent: float, share: float, expected: float, said: str) -> None:
    assert left_in_words(remaining(spent, share, expected)) == said


def test_a_launch_says_what_is_left_beyond_a_stage_that_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {ref: StageState(ref, "", Path("log"), 20.0) for ref in (Ref("train", "a"), Ref("train", "b"))}
    board = Board("test", stages, 0, slots=1)
    monkeypatch.setattr("qup.launch.local.board.time.time", lambda: 1000.0)
    first, second = stages.values()
    first.state, first.began = "running", 990.0
    assert board.left() == "30 s left"
    first.began = 900.0
    assert board.left() == "more than 20 s left"
    second.state = "done"
    assert board.left() == "longer than estimated"


def test_the_width_of_a_pipe_is_that_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert make_console().width == 60
    monkeypatch.setenv("COLUMNS", "0")
    assert make_console().width == 200
