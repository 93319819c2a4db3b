"""The stage that loads and decontaminates the training problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from qup.config.schema import Benchmark, LabProblems, Problems
from qup.config.views import ProblemsView
from qup.errors import InputError
from qup.records import PROBLEMS
from qup.stages import problems as stage
from tests.helpers.artifacts import context

SHARED = "a farmer has three fields and sells the hay of every second one to his oldest neighbour"
QUESTIONS = ["one plus one", "Two plus TWO", f"Long ago {SHARED} . How much ?", "four plus four", "a proof"]


def write(path: Path, questions: list[str]) -> str:
    rows = [{"question": text, "answer": "1" if text != "a proof" else "", "solution": f"because {text}"} for text in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    against = {
        "small": Benchmark(path=write(tmp_path / "small.jsonl", ["two  plus two", "nine plus nine"])),
        "long": Benchmark(path=write(tmp_path / "long.jsonl", [f"Today {SHARED}"])),
    }
    return {"path": write(tmp_path / "p.jsonl", QUESTIONS), "missing_gold": "exclude", "decontaminate_against": against}


def run(tmp_path: Path, **settings: Any) -> tuple[list[str], dict[str, Any]]:
    ctx = context(tmp_path, "run-" + str(settings.get("decontamination", "exact")))
    metrics = stage.run(ProblemsView(Problems(**settings)), {}, ctx)
    table = pq.read_table(ctx.out / "problems.parquet")
    assert table.schema.equals(PROBLEMS)
    json.dumps(metrics)
    return table["problem_id"].to_pylist(), metrics


@pytest.mark.parametrize(("rule", "left"), [("exact", ["0", "2", "3"]), ("ngram13", ["0", "3"]), ("none", ["0", "1", "2", "3"])])
def test_removes_by_the_rule_and_reports_overlap_under_every_rule(
    tmp_path: Path, settings: dict[str, Any], rule: str, left: list[str]
) -> None:
    ids, metrics = run(tmp_path, **settings, decontamination=rule)
    assert ids == left
    assert metrics == {
        "n_loaded": 5,
        "excluded_no_gold": 1,
        "decontamination": rule,
        "overlap": {"small": {"exact": 1, "ngram13": 0}, "long": {"exact": 0, "ngram13": 1}},
        "removed": 4 - len(left),
        "n": len(left),
    }


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings["decontaminate_against"] = {"same": Benchmark(path=write(tmp_path / "same.jsonl", QUESTIONS[:4]))}
    with pytest.raises(InputError, match="no problem is left of 5: 1 have no gold answer, decontamination=exact removed 4"):
        run(tmp_path, **settings)


def test_a_bad_benchmark_is_named_by_its_key(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings["decontaminate_against"] = {"none": Benchmark(path=str(tmp_path / "none.jsonl"))}
    with pytest.raises(InputError, match=r"^problems\.decontaminate_against\.none: .*none\.jsonl: there is no such file"):
        run(tmp_path, **settings)


def test_the_labs_problems_share_nothing_with_its_benchmarks(tmp_path: Path) -> None:
    against = {"held_out": Benchmark(lab=LabProblems(n=100, seed=102), gold="lab", extraction="lab")}
    ids, metrics = run(tmp_path, lab=LabProblems(n=100, seed=1), gold="lab", decontaminate_against=against)
    assert len(ids) == 100 and metrics["overlap"]["held_out"]["exact"] == 0
