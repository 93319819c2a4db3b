"""An exported evaluation has the files, names and fields that lm-evaluation-harness and lighteval read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from qup.cli import _parser
from qup.data.benchmarks import items
from qup.errors import InputError
from qup.export import export
from qup.generation.utility import figures, harness_results
from qup.records import EVALUATED, RESPONSES
from qup.samples import FORMATS
from qup.store import save_table
from tests.analysis import world
from tests.analysis.world import World, build_study, lab_cells

CELL = "lab_foreign/slm_rft/sft"
MODEL = "lab_foreign__slm_rft__sft"
DATE = "1970-01-01T00-00-01.000000"


def answers(config):
    """Of each problem two responses, right and wrong in turn; the first of each benchmark has none right."""
    for place, item in enumerate(items(config.evaluation)):
        for sample in (0, 1):
            correct = sample == 0 and place % 3 != 0
            told = item.gold if correct else "none"
            row = {
                "benchmark": item.benchmark,
                "problem_id": item.problem_id,
                "dev": item.dev,
                "sample": sample,
                "n_tokens": 3,
                "finish": "stop",
            }
            yield row | {"text": f"so it is {told}", "extracted": told, "correct": correct, "verdict": "equal" if correct else "wrong"}


def make_responses(out: Path, node, world, config, rng) -> dict:
    save_table(out, "responses", pa.Table.from_pylist(list(answers(config)), schema=RESPONSES))
    return {}


def make_evaluate(out: Path, node, world, config, rng) -> dict:
    table = pa.Table.from_pylist(list(answers(config)), schema=EVALUATED)
    save_table(out, "verdicts", table)
    dev = table["dev"].to_pylist()
    parts = {flag: table.filter(pa.array([one == flag for one in dev])) for flag in (False, True)}
    by = {flag: {name: figures(part.filter(pa.compute.equal(part["benchmark"], name))) for name in set(part["benchmark"].to_pylist())} for flag, part in parts.items()}  # fmt: skip
    config = {"model": "lab", "gen_kwargs": {"temperature": 0.6}}
    (out / "results.json").write_text(json.dumps(harness_results(by[False], by[True], config)), encoding="utf-8")
    return {}


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("samples")
    cells = lab_cells(
        arms=("slm_rft",), objectives=("sft",), students=(("lab_foreign", 0.0),), benchmarks={"easy": 6, "hard": 5}, dev={"hard": 2}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "_make_responses", make_responses, raising=False)
        patch.setattr(world, "_make_evaluate", make_evaluate)
        folder, _ = build_study(root, World(cells, problems=5, steps=3), "night")
    (root / "multirun").symlink_to(folder.parent)
    return root / "multirun"


@pytest.fixture(scope="module")
def made(shown, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("made")
    for form in FORMATS:
        assert export(CELL, root / form, None, shown, Console(quiet=True), form) == 0
    return {form: root / form for form in FORMATS}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_harness_has_a_file_of_results_and_one_of_samples_a_task(made):
    names = sorted(path.relative_to(made["lm-eval"]).as_posix() for path in made["lm-eval"].rglob("*.json*"))
    assert names == [
        f"{MODEL}/results_{DATE}.json",
        *(f"{MODEL}/samples_{task}_{DATE}.jsonl" for task in ("easy", "hard", "hard_dev")),
    ]


def test_a_sample_of_the_harness_has_its_fields(made):
    sample = lines(made["lm-eval"] / MODEL / f"samples_easy_{DATE}.jsonl")[1]
    gold = sample["doc"]["answer"]
    assert sample["doc_id"] == 1 and sample["target"] == gold
    assert sample["doc"]["question"] in sample["arguments"]["gen_args_0"]["arg_0"]
    assert sample["arguments"]["gen_args_0"]["arg_1"] == {"temperature": 0.6}
    assert sample["resps"] == [[f"so it is {gold}", "so it is none"]]
    assert sample["filtered_resps"] == [[gold, "none"]]
    assert (sample["filter"], sample["metrics"], sample["acc"]) == ("none", ["acc"], 0.5)
    assert sample["target_hash"] == hashlib.sha256(gold.encode()).hexdigest()


def test_samples_of_the_harness_average_to_its_results(made):
    results = json.loads((made["lm-eval"] / MODEL / f"results_{DATE}.json").read_text())
    assert results["config"]["model_args"] == "" and set(results["configs"]) == {"easy", "hard", "hard_dev"}
    for task, settings in results["configs"].items():
        (metric,) = settings["metric_list"]
        found = [sample[metric["metric"]] for sample in lines(made["lm-eval"] / MODEL / f"samples_{task}_{DATE}.jsonl")]
        assert sum(found) / len(found) == pytest.approx(results["results"][task]["acc,none"])


def test_details_of_lighteval_are_read_by_datasets_and_average_to_the_results(made, tmp_path):
    datasets = pytest.importorskip("datasets")
    results = json.loads((made["lighteval"] / "results" / MODEL / f"results_{DATE}.json").read_text())["results"]
    assert set(results) == {"easy|0", "hard|0", "hard_dev|0"}
    for task, found in results.items():
        path = made["lighteval"] / "details" / MODEL / DATE / f"details_{task}_{DATE}.parquet"
        details = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path))
        assert details.column_names == ["doc", "metric", "model_response"]
        assert sum(one["metric"]["acc"] for one in details) / len(details) == pytest.approx(found["acc"])


def test_a_detail_of_lighteval_has_its_problem_and_all_responses(made):
    row = pq.read_table(made["lighteval"] / "details" / MODEL / DATE / f"details_hard_dev|0_{DATE}.parquet").to_pylist()[1]
    gold = row["doc"]["choices"][row["doc"]["gold_index"]]
    assert row["model_response"]["text"] == [f"so it is {gold}", "so it is none"]
    assert row["model_response"]["text_post_processed"] == [gold, "none"]
    assert row["model_response"]["input"] == row["doc"]["query"]


def test_a_stream_has_no_evaluation_to_export(shown, tmp_path):
    with pytest.raises(InputError, match="--format=lm-eval: is for an evaluation"):
        export(f"stream/{CELL}", tmp_path / "x", None, shown, Console(quiet=True), "lm-eval")


def test_responses_to_problems_that_are_gone_are_refused(shown, tmp_path, monkeypatch):
    import qup.samples as samples

    monkeypatch.setattr(samples, "items", lambda evaluation: [one for one in items(evaluation) if one.benchmark == "easy"])
    with pytest.raises(InputError, match=r"hard/.*no longer holds"):
        export(CELL, tmp_path / "x", None, shown, Console(quiet=True), "lighteval")
    assert not (tmp_path / "x").exists()


def test_the_command_takes_each_format():
    for form in FORMATS:
        assert _parser().parse_args(["export", CELL, "x", "--format", form]).format == form
