"""Loading problems and benchmarks, and saying what is wrong with a file before anything runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qup.config.schema import Benchmark, LabProblems, Problems, Source
from qup.data.formats import count_local
from qup.data.sets import check_file, load_benchmark, load_problems
from qup.data.traces import check_traces
from qup.errors import InputError
from qup.records import PROBLEMS

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
ROWS = [{"q": f"What is {n} and {n}?", "a": float(2 * n), "s": f"{n} + {n} = {2 * n}", "key": f"k{n}"} for n in range(20)]

Write = Callable[..., Problems]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows (or raw text) as a file and gives the Problems that read it."""

    def write(rows: list[dict[str, Any]] | str | bytes, name: str = "p.jsonl", **settings: Any) -> Problems:
        path = tmp_path / name
        if isinstance(rows, list):
            rows = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(rows.encode() if isinstance(rows, str) else rows)
        return Problems(**{"path": str(path), "question": "q", "answer": "a", "solution": "s"} | settings)

    return write


def faults(problems: Problems | Benchmark) -> str:
    """What the check says; loading must refuse the file with the same words."""
    found = [str(fault) for fault in check_file(problems, "problems")]
    if found:
        with pytest.raises(InputError) as error:
            load_problems(problems) if isinstance(problems, Problems) else load_benchmark("b", problems)
        for fault in found:
            assert fault.partition(": ")[2] in str(error.value)
    return "\n".join(found)


def test_columns_are_mapped_and_rows_are_numbered_from_0(write: Write) -> None:
    table, counts = load_problems(write(ROWS))
    assert table.schema == PROBLEMS
    assert table.slice(3, 1).to_pylist() == [{"problem_id": "3", "question": "What is 3 and 3?", "answer": "6", "solution": "3 + 3 = 6"}]
    assert counts == {"n_loaded": 20, "excluded_no_gold": 0}


def test_ids_come_from_their_column(write: Write) -> None:
    assert load_problems(write(ROWS, id="key"))[0]["problem_id"].to_pylist()[:2] == ["k0", "k1"]


def test_a_template_stands_in_for_the_solution(write: Write) -> None:
    table, _ = load_problems(write(ROWS, solution=None, solution_template="The answer is {answer}. {x}"))
    assert table["solution"].to_pylist()[1] == "The answer is 2. {x}"
    assert set(load_problems(write(ROWS, solution=None))[0]["solution"].to_pylist()) == {""}


def test_the_limit_is_of_rows_and_what_comes_after_is_not_read(write: Write) -> None:
    text = "".join(json.dumps(row) + "\n" for row in ROWS[:5]) + "{broken\n"
    assert load_problems(write(text, limit=5))[0].num_rows == 5
    assert check_file(write(text, limit=5), "problems") == []


def test_every_format_gives_the_same_table(write: Write, tmp_path: Path) -> None:
    expected = load_problems(write(ROWS))[0]
    assert load_problems(write(json.dumps(ROWS), "p.json"))[0].equals(expected)
    lines = ["q,a,s,key", *(f'"{row["q"]}",{row["a"]},{row["s"]},{row["key"]}' for row in ROWS)]
    assert load_problems(write("\ufeff" + "\r\n".join(lines) + "\r\n", "p.csv", gold="float"))[0].equals(expected)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p.parquet", row_group_size=7)
    assert load_problems(Problems(path=str(tmp_path / "p.parquet"), question="q", answer="a", solution="s"))[0].equals(expected)


def test_rows_are_counted_without_being_loaded(write: Write, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p.parquet")
    write("\n".join(json.dumps(row) for row in ROWS) + "\n\n", "p.jsonl")
    write(json.dumps(ROWS), "p.json")
    write("q,a\n" + "".join(f'"a\n{row["a"]}",1\n' for row in ROWS), "p.csv")
    for name in ("p.parquet", "p.jsonl", "p.json", "p.csv"):
        assert count_local(tmp_path / name, "train") == len(ROWS), name
    (tmp_path / "data").mkdir()
    (tmp_path / "p.parquet").rename(tmp_path / "data" / "train-0.parquet")
    assert count_local(tmp_path / "data", "train") == len(ROWS)
    (tmp_path / "broken.parquet").write_text("no parquet")
    for name in ("broken.parquet", "gone.jsonl", "data/x.txt"):
        assert count_local(tmp_path / name, "train") is None, name


def test_a_folder_is_its_files_of_the_split_in_order(tmp_path: Path) -> None:
    for name, rows in (("train-0.parquet", ROWS[:12]), ("train-1.parquet", ROWS[12:]), ("test-0.parquet", ROWS[:3])):
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / name)
    problems = Problems(path=str(tmp_path), question="q", answer="a", solution="s", id="key")
    assert load_problems(problems)[0]["problem_id"].to_pylist() == [row["key"] for row in ROWS]
    assert load_problems(Problems(path=str(tmp_path), question="q", answer="a", solution="s", limit=13))[0].num_rows == 13
    assert load_benchmark("b", Benchmark(path=str(tmp_path), question="q", answer="a", split="test")).num_rows == 3
    assert "no files of split 'dev'; the folder holds data/test-0.parquet" in faults(Problems(path=str(tmp_path), split="dev"))


def test_a_split_is_matched_exactly(tmp_path: Path) -> None:
    lines = {"train.jsonl": 3, "train_backup.jsonl": 5, "training.jsonl": 7, "train-extra.jsonl": 9, "pretrain.jsonl": 11}
    for name, n in lines.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in ROWS[:n]))
    assert load_problems(Problems(path=str(tmp_path), question="q", answer="a", solution="s"))[0].num_rows == 3
    assert count_local(tmp_path, "train") == 3


@pytest.mark.parametrize(
    "name", ["train.jsonl", "train-00000-of-00001.jsonl", "train-00000-of-00001-abc123.jsonl", "train-0.jsonl", "train/0000.jsonl"]
)
def test_the_names_by_which_splits_are_known(tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / name).parent.mkdir(parents=True)
    (tmp_path / "data" / name).write_text("".join(json.dumps(row) + "\n" for row in ROWS[:4]))
    assert load_problems(Problems(path=str(tmp_path), question="q", answer="a", solution="s"))[0].num_rows == 4


def test_a_subset_is_a_subfolder(tmp_path: Path) -> None:
    """As a data set with two subsets lies where it was downloaded to."""
    for name, n in (("main", 3), ("socratic", 5)):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(ROWS[:n]), tmp_path / name / "train-00000-of-00001.parquet")
    columns = {"question": "q", "answer": "a", "solution": "s"}
    assert load_problems(Problems(path=str(tmp_path), subset="socratic", **columns))[0].num_rows == 5
    assert count_local(tmp_path, "train", "main") == 3
    assert "in several folders: main, socratic; choose one by subset=" in faults(Problems(path=str(tmp_path), **columns))
    told = faults(Problems(path=str(tmp_path), subset="mian", **columns))
    assert "no subfolder 'mian' (subset); the folder holds main/train-00000-of-00001.parquet" in told


def test_all_rows_that_cannot_be_read_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"question": "1"\n[1]\n{"question": "2", "answer": "3"}\nno\n')
    told = faults(Problems(path=str(path)))
    assert "3 rows can't be read: row 1: not valid JSON" in told
    assert "row 2: expected an object, found list; row 4: not valid JSON" in told


def test_rows_that_cannot_be_read_hide_no_other_fault(tmp_path: Path) -> None:
    """Of a file of problems, and of a file of traces."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"question": "1"\n{"question": "", "answer": "3"}\n')
    told = check_file(Problems(path=str(path), solution=None), "problems")
    assert [fault.key for fault in told] == ["problems.path", "problems.question"]
    path.write_text('{"problem_id": 1\n{"problem_id": 2, "text": 2}\n')
    (fault,) = check_traces(Source(name="file", path=str(path)), "source")
    assert "row 1: not valid JSON" in fault.valid and "row 2:" in fault.valid


def test_rows_are_judged_though_a_column_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"problem": "1", "answer": ""}\n{"problem": "2", "answer": "3"}\n')
    told = check_file(Problems(path=str(path), solution=None), "problems")
    assert [fault.key for fault in told] == ["problems.question", "problems.answer"]


def test_all_faults_of_a_file_of_traces_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"problem_id": 1, "text": 2}\n{"problem_id": null, "text": "x"}\n{"problem_id": 3, "text": "x"}\n')
    (told,) = check_traces(Source(name="file", path=str(path)), "source")
    assert "row 1:" in told.valid and "row 2:" in told.valid and "row 3" not in told.valid
    (told,) = check_traces(Source(name="file", path=str(path), id="a", text="b"), "source")
    assert "no column 'a' (source.id) and no column 'b' (source.text); it has problem_id, text" in told.valid


def test_the_hub_way_gives_the_same_table(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_problems(write(ROWS, limit=7))[0]
    asked: dict[str, Any] = {}

    def load_dataset(name: str, subset: str | None, **how: Any) -> Any:
        asked.update(name=name, subset=subset, **how)
        return datasets.Dataset.from_list(ROWS)

    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    commit = "a" * 40
    problems = Problems(path="org/name", question="q", answer="a", solution="s", limit=7, subset="main", revision="v1", content=commit)
    assert check_file(problems, "problems") == []
    assert load_problems(problems)[0].equals(expected)
    assert asked == {"name": "org/name", "subset": "main", "split": "train", "revision": commit}


def test_a_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no\nroute")))
    with pytest.raises(
        InputError, match=r"problems: org/name \(subset default, split train, revision newest\) can't be loaded .*ConnectionError: no route"
    ):
        load_problems(Problems(path="org/name"))


def test_the_lab_generates_problems() -> None:
    table, _ = load_problems(Problems(lab=LabProblems(n=6), gold="lab", solution=None, solution_template="x"))
    assert table.num_rows == 6
    assert all(answer.isdigit() for answer in table["answer"].to_pylist())
    assert len(load_benchmark("b", Benchmark(lab=LabProblems(n=6, seed=2), gold="lab", limit=4))) == 4
    assert "min_steps=3 is above max_steps=2" in faults(Problems(lab=LabProblems(min_steps=3, max_steps=2), gold="lab"))


def test_benchmarks_have_no_solutions(write: Write) -> None:
    table = load_benchmark("b", Benchmark(path=write(ROWS).path, question="q", answer="a"))
    assert set(table["solution"].to_pylist()) == {""}


def test_bad_json_is_named_by_its_row(write: Write) -> None:
    lines = [json.dumps(row) for row in ROWS]
    lines[16] = lines[16][:20]
    assert "p.jsonl, row 17: not valid JSON" in faults(write("\n".join(lines)))
    lines[16] = "[1]"
    assert "p.jsonl, row 17: expected an object, found list" in faults(write("\n".join(lines)))
    text = "\n".join(lines[:16]).encode() + b'\n{"q": "\xff"}\n'
    assert "p.jsonl, row 17: not valid UTF-8" in faults(write(text))
    assert "p.jsonl, row 1: JSON nested too deeply" in faults(write('{"q":' + "[" * 200_000))


def test_blank_lines_count_as_lines_and_not_as_rows(write: Write) -> None:
    text = json.dumps(ROWS[0]) + "\n\n" + json.dumps(ROWS[1] | {"a": None}) + "\n"
    assert "row 3 (" in faults(write(text))
    assert load_problems(write(text, missing_gold="exclude"))[0].num_rows == 1


def test_other_broken_files(write: Write, tmp_path: Path) -> None:
    assert "the file holds no rows" in faults(write(""))
    assert "the file holds no rows" in faults(write("\n\n"))
    assert "p.json: not valid JSON" in faults(write("[1,", "p.json"))
    assert "p.json: expected a list of objects, found dict" in faults(write("{}", "p.json"))
    assert "p.json, row 1: expected an object, found int" in faults(write("[1]", "p.json"))
    assert "p.csv, row 3: 2 cells, but 3 columns: q, a, s" in faults(write("q,a,s\n1,2,3\n4,5\n", "p.csv"))
    assert "p.csv, row 3: not valid UTF-8" in faults(write(b"q,a,s\n1,2,3\n\xff,2,3\n", "p.csv"))
    assert "p.csv, row 2: not valid CSV" in faults(write('q,a,s\n"1"x,2,3\n', "p.csv"))
    assert "not a readable parquet file" in faults(write("PAR1", "p.parquet"))
    assert "there is no such file" in faults(Problems(path=str(tmp_path / "none.jsonl")))
    assert "expected a file that ends in .jsonl, .json, .parquet, .csv" in faults(write("x", "p.txt"))


def test_missing_columns_are_named_with_those_there_are(write: Write) -> None:
    text = faults(write(ROWS, question="problem", answer="gold", id="id", solution="cot"))
    for key, column in (("question", "problem"), ("answer", "gold"), ("id", "id"), ("solution", "cot")):
        assert f"problems.{key}='{column}': no such column in" in text
    assert text.count("choose of q, a, s, key") == 4


def test_a_missing_gold_answer_is_an_error_or_excluded_and_counted(write: Write) -> None:
    rows = [row | {"s": f"so \\boxed{{{row['a']}}}" if n not in (4, 9) else "a proof"} for n, row in enumerate(ROWS)]
    text = faults(write(rows, answer="s", gold="boxed"))
    assert "problems.answer='s': no gold answer by gold=boxed in 2 of 20 rows: row 5 (no closed \\boxed in 'a proof'), row 10 (" in text
    assert "problems.missing_gold=exclude leaves them out" in text
    table, counts = load_problems(write(rows, answer="s", gold="boxed", missing_gold="exclude"))
    assert counts == {"n_loaded": 20, "excluded_no_gold": 2}
    assert table["problem_id"].to_pylist() == [str(n) for n in range(20) if n not in (4, 9)]
    assert "no gold answer in any row" in faults(write(ROWS, answer="s", gold="boxed", missing_gold="exclude"))
    assert "row 1 (" in faults(Benchmark(path=write(ROWS).path, question="q", answer="s", gold="boxed"))


def test_long_lists_of_rows_are_cut_short_and_counted(write: Write) -> None:
    assert "20 of 20 rows: row 1 (" in (text := faults(write(ROWS, gold="boxed", answer="s")))
    assert "and 10 more" in text and "row 11 (" not in text


def test_duplicate_and_missing_ids_are_refused(write: Write) -> None:
    rows = [dict(row) for row in ROWS]
    rows[7]["key"] = "k2"
    rows[8]["key"] = None
    assert "problems.id='key': ids must be there and differ; 2 of 20 rows: row 8 ('k2', as row 3), row 9 (None)" in faults(
        write(rows, id="key")
    )


def test_questions_and_solutions_must_be_texts(write: Write) -> None:
    rows = [dict(row) for row in ROWS]
    rows[0]["q"], rows[1]["q"], rows[2]["q"], rows[3]["q"] = " ", None, 7, "half \ud800"
    rows[4]["s"] = ["step"]
    text = faults(write(rows))
    assert "4 of 20 rows: row 1 (empty), row 2 (empty), row 3 (not a text but int), row 4 (half a surrogate pair)" in text
    assert "problems.solution='s': not a text in 1 of 20 rows: row 5" in text
    rows = [row | {"s": None} for row in ROWS]
    assert set(load_problems(write(rows))[0]["solution"].to_pylist()) == {""}


def test_all_faults_come_together(write: Write) -> None:
    rows = [dict(row) for row in ROWS]
    rows[1]["q"], rows[2]["a"], rows[3]["key"] = "", "", "k0"
    assert len(check_file(write(rows, id="key"), "problems")) == 3


def test_the_check_imports_nothing_heavy(write: Write) -> None:
    path = write(ROWS).path
    code = f"""
import sys
from qup.config.schema import Problems
from qup.data.sets import check_file
assert check_file(Problems(path={path!r}, question="q", answer="a", solution="s"), "problems") == []
heavy = {{"torch", "transformers", "datasets", "deepspeed", "wandb", "sympy", "math_verify", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


REAL: dict[str, tuple[int, dict[str, Any], str]] = {
    "math500": (500, {"question": "problem", "answer": "solution", "gold": "boxed"}, "\\left( 3, \\frac{\\pi}{2} \\right)"),
    "minerva_math": (272, {"question": "problem", "answer": "solution", "gold": "boxed"}, "1.6"),
    "aime24": (30, {}, "204"),
    "amc23": (40, {"gold": "float"}, "27"),
    "gsm8k_test": (1319, {"gold": "gsm8k"}, "18"),
    "multiarith": (600, {"question": "input", "answer": "target", "gold": "float"}, "39"),
    "addsub": (395, {"question": "input", "answer": "target", "gold": "float"}, "43"),
    "singleop": (562, {"question": "input", "answer": "target", "gold": "float"}, "14"),
}


@pytest.mark.skipif(not (DATA / "math500.jsonl").exists(), reason=f"{DATA} holds no benchmark files")
@pytest.mark.parametrize("name", REAL)
def test_reads_the_benchmarks_as_their_repositories_ship_them(name: str) -> None:
    n, settings, first = REAL[name]
    benchmark = Benchmark(path=str(DATA / f"{name}.jsonl"), **settings)
    assert check_file(benchmark, f"evaluation.benchmarks.{name}") == []
    table = load_benchmark(name, benchmark)
    assert (table.num_rows, table["answer"][0].as_py()) == (n, first)
