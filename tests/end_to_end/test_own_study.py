"""The way of someone who has never seen qup, by the tutorial: a folder of their own, then their problems, student and traces."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qup.config.schema import LabProblems
from qup.lab.world import problems
from tests.helpers.lab import ROOT, environment

pytestmark = pytest.mark.timeout(1200)


def typed(folder: Path, command: str) -> tuple[int, str]:
    """Exit status and output of a command of the README, typed in the folder."""
    words = shlex.split(command)
    assert words[0] == "qup"
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def commands(page: Path, language: str = "bash") -> list[str]:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


def rows(folder: Path, study: str) -> list[dict[str, str]]:
    with (folder / "multirun" / study / "report" / "cells.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(lab_small: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `qup init` makes; its toy student is stored already, for it is that of lab_small."""
    place = tmp_path_factory.mktemp("own")
    status, out = typed(place, "qup init my_study")
    assert status == 0, out
    assert "qup launch -m experiment=mine" in out
    shutil.copytree(lab_small[0] / "store" / "student", place / "my_study" / "store" / "student")
    return place / "my_study"


def test_the_folder_runs_as_it_stands(folder: Path) -> None:
    planned, ran, *_ = commands(folder / "README.md")
    assert (planned, ran) == ("qup launch -m experiment=mine study.dry_run=true", "qup launch -m experiment=mine")
    status, out = typed(folder, planned)
    assert status == 0, out
    assert out.startswith("mine  3 cells")
    status, out = typed(folder, ran)
    assert status == 0, out
    assert {row["stream"] for row in rows(folder, "mine")} == {"slm_rft", "my_traces", "base"}
    assert all(row["total"] for row in rows(folder, "mine"))
    assert "nothing was computed" in typed(folder, ran)[1]


def test_the_folder_copies_nothing_of_the_checkout(folder: Path) -> None:
    assert not [path for path in folder.rglob("*.py") if "store" not in path.parts]
    assert not {path.name for path in (folder / "conf").rglob("*.yaml")} & {path.name for path in (ROOT / "conf").rglob("*.yaml")}


def test_a_folder_that_holds_something_is_left_alone(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    status, out = typed(folder.parent, f"qup init {folder.name}")
    assert (status, "is there already" in out) == (1, True)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_what_is_wrong_with_own_files_is_told_at_once(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine, ignore=shutil.ignore_patterns("store", "multirun"))
    (mine / "data" / "problems.jsonl").write_text('{"id": "1", "problem": "?", "answer": ""}\n')
    (mine / "data" / "benchmark.jsonl").write_text("no json\n")
    (mine / "data" / "traces.jsonl").write_text('{"problem": "1"}\n')
    status, out = typed(mine, "qup launch -m experiment=mine model=my_student study.dry_run=true")
    assert status == 2
    for told in (
        "problems.question='question': no such column",
        "problems.answer='answer': no gold answer",
        "problems.solution='solution': no such column",
        "evaluation.benchmarks.my_benchmark.path",
        "not valid JSON",
        "no column 'id' (source.id) and no column 'text' (source.text)",
        "model.path='./models/my_student'",
    ):
        assert told in out, out


def test_own_data_come_to_a_report(folder: Path) -> None:
    """The four steps of the tutorial, with a student that transformers saved and files whose columns have other names."""
    made = problems(LabProblems(n=100, seed=21, min_steps=1, max_steps=1))
    held_out = problems(LabProblems(n=30, seed=122, min_steps=1, max_steps=1))
    write(
        folder / "data" / "problems.jsonl", [{"nr": f"q{i}", "text": row["question"], "gold": row["answer"]} for i, row in enumerate(made)]
    )
    write(folder / "data" / "benchmark.jsonl", [{"text": row["question"], "gold": row["answer"]} for row in held_out])
    write(folder / "data" / "traces.jsonl", [{"nr": f"q{i}", "trace": row["solution"]} for i, row in enumerate(made)])
    change(folder / "conf/problems/my_problems.yaml", ("id: id", "id: nr"), ("question: question", "question: text"))
    change(folder / "conf/problems/my_problems.yaml", ("answer: answer", "answer: gold"), ("solution: solution", "solution: null"))
    change(folder / "conf/evaluation/my_benchmark.yaml", ("question: question, answer: answer", "question: text, answer: gold"))
    change(folder / "conf/experiment/mine.yaml", ("id: id, text: text", "id: nr, text: trace"))
    student = next((folder / "store" / "student").glob("*/model"))
    shutil.copytree(student, folder / "models" / "my_student")
    _, _, own, seeds = commands(folder / "README.md")
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert f"```bash slow\n{own}\n```" in text and f"```bash slow\n{seeds}\n```" in text, "the two pages say the same"
    status, out = typed(folder, own)
    assert status == 0, out
    found = {row["stream"]: row for row in rows(folder, "my_student")}
    assert found.keys() == {"slm_rft", "my_traces", "base"}
    assert all(row["total"] and row["model"] == "my_student" for row in found.values())
    assert found["slm_rft"]["n_train"] == found["my_traces"]["n_train"] != "0"
    report = (folder / "multirun" / "my_student" / "report" / "report.html").read_text(encoding="utf-8")
    assert "my_traces" in report and "my_student" in report
    status, out = typed(folder, f"{seeds} study.dry_run=true")
    assert status == 0, out
    plan = json.loads((folder / "multirun" / "three_seeds" / "plan.json").read_text(encoding="utf-8"))
    to_run = {stage["name"] for stage in plan["stages"] if stage["state"] == "run"}
    assert to_run == {"train", "responses", "evaluate"}, "what the seeds share is not computed again"


def write(path: Path, entries: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def change(path: Path, *replacements: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for before, after in replacements:
        assert before in text, f"{path}: {before}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")
