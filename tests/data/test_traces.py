"""Traces from files: which files, which teacher, which problem, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qup.config.schema import Source
from qup.data.traces import check_ids, check_traces, is_hub, read_traces, trace_files
from qup.errors import InputError


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def public(folder: Path, *teachers: str, n: int = 3) -> Path:
    """As public sets of several teachers are laid out: one JSONL a teacher with id, instruction, teacher_output."""
    for teacher in teachers:
        rows = [{"id": i, "instruction": f"What is {i} + 1?", "teacher_output": f"{teacher}: \\boxed{{{i + 1}}}"} for i in range(n)]
        write(folder / f"{teacher}.jsonl", *rows)
    return folder


PUBLIC = {"id": "id", "text": "teacher_output"}


@pytest.mark.parametrize("named", ["folder", "pattern", "files"])
def test_the_files_name_is_the_teacher(tmp_path: Path, named: str) -> None:
    folder = public(tmp_path, "ada", "bob")
    where = {
        "folder": {"path": str(folder)},
        "pattern": {"path": f"{folder}/*.jsonl"},
        "files": {"files": [str(folder / "ada.jsonl"), f"{folder}/b*.jsonl"]},
    }
    given = read_traces(Source("file", **where[named], **PUBLIC))
    assert given.teachers == ["ada"] * 3 + ["bob"] * 3
    assert given.names == ["0", "1", "2"] * 2
    assert given.who == ["ada", "bob"]


def test_a_column_tells_the_teacher_before_the_files_name_does(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", *({"problem_id": "p", "text": f"t {who}", "who": who} for who in ("ada", "bob")))
    assert read_traces(Source("file", path=str(path), teacher_column="who")).teachers == ["ada", "bob"]


def test_parts_of_one_split_file_are_one_teacher(tmp_path: Path) -> None:
    files = [write(tmp_path / f"ada-0000{i}-of-00002.jsonl", {"problem_id": str(i), "text": "t"}) for i in range(2)]
    assert read_traces(Source("file", files=[str(path) for path in files])).who == ["ada"]


def test_problems_can_be_found_by_their_text(tmp_path: Path) -> None:
    source = Source("file", path=str(public(tmp_path, "ada")), text="teacher_output", question="instruction")
    problems = [(f"x{i}", f"what  is {i} + 1?") for i in range(2)]
    faults, note = check_ids(source, "source", problems)
    assert faults == [] and "1 of 3 traces belong to no problem" in note
    faults, _ = check_ids(source, "source", [("x", "another question")])
    assert "is a problem's question" in str(faults[0])


def test_the_same_problem_twice_by_one_teacher_is_refused(tmp_path: Path) -> None:
    public(tmp_path, "ada")
    write(tmp_path / "bob.jsonl", *({"id": 1, "teacher_output": text} for text in ("one", "two")))
    with pytest.raises(InputError, match=r"bob.jsonl, row 2: teacher 'bob' has a trace of id=1 already, in .*bob.jsonl, row 1"):
        read_traces(Source("file", path=str(tmp_path), **PUBLIC))
    assert len(read_traces(Source("file", path=str(tmp_path), samples=2, **PUBLIC)).texts) == 5


def test_one_file_without_teachers_may_have_several_traces_of_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", *({"problem_id": "p", "text": text} for text in ("one", "two")))
    assert read_traces(Source("file", path=str(path))).teachers == ["mine", "mine"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"path": "none/*.jsonl"}, "no file that ends in"),
        ({"path": "none.jsonl"}, "there is no such file"),
        ({"files": ["a/ada.jsonl", "b/ada.jsonl"]}, "would be the same teacher, 'ada'"),
        ({"path": "bad.jsonl"}, "row 1: teacher has to name a teacher, found ''"),
        ({"path": "a", "teacher": "eve"}, "wrote none of the traces; the teachers are ada"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, Any], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        write(tmp_path / folder / "ada.jsonl", {"problem_id": folder, "text": "t"})
    write(tmp_path / "bad.jsonl", {"problem_id": "p", "text": "t", "teacher": ""})
    (fault,) = check_traces(Source("file", **source), "source")
    assert says in str(fault)


def test_a_hub_name_is_taken_on_trust_and_pinned_by_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = Source("file", path="someone/common-correct-responses", content="0" * 40, **PUBLIC)
    assert is_hub(source) and check_traces(source, "source") == []
    asked: dict[str, Any] = {}

    def snapshot(name: str, **how: Any) -> str:
        asked.update(how, name=name)
        return str(public(tmp_path, "ada", "bob"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert [path.stem for path in trace_files(source)] == ["ada", "bob"]
    assert asked["name"] == source.path and asked["revision"] == "0" * 40 and asked["repo_type"] == "dataset"


SOLUTIONS = Path(__file__).parents[3] / "shared/data/gsm8k_model_solutions_400.jsonl"


@pytest.mark.skipif(not SOLUTIONS.exists(), reason="the published model solutions of GSM8K are not here")
def test_published_solutions_of_four_models_are_four_teachers(tmp_path: Path) -> None:
    """OpenAI's file has a column a model; every problem of GSM8K's is found by its text."""
    rows = [json.loads(line) for line in SOLUTIONS.read_text(encoding="utf-8").splitlines()]
    models = [name for name in rows[0] if name not in ("question", "ground_truth")]
    for model in models:
        write(tmp_path / f"{model}.jsonl", *({"question": row["question"], "text": row[model]["solution"]} for row in rows))
    source = Source("file", path=f"{tmp_path}/*.jsonl", question="question")
    given = read_traces(source)
    assert sorted(given.who) == sorted(models) and len(models) == 4
    asked = [json.loads(line)["question"] for line in (SOLUTIONS.parent / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert check_ids(source, "source", [(str(i), question) for i, question in enumerate(asked)]) == ([], "")
