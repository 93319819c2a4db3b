"""An evaluation's answers, sample by sample, as lm-evaluation-harness and lighteval lay out theirs.

Written after lm-evaluation-harness 0.4.13 (`--log_samples`) and lighteval 0.13 (`--save-details`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qup.config.fingerprint import build
from qup.config.schema import Config
from qup.data.benchmarks import Item, items
from qup.errors import InputError
from qup.store import Artifact
from qup.study import Cell
from qup.text.templates import messages

DETAIL = pa.schema(
    [
        ("doc", pa.struct([("query", pa.string()), ("choices", pa.list_(pa.string())), ("gold_index", pa.int64()), ("task_name", pa.string()), ("id", pa.string()), ("instruction", pa.string())])),
        ("metric", pa.struct([("acc", pa.float64())])),
        (
            "model_response",
            pa.struct(
                [
                    ("input", pa.string()), ("input_tokens", pa.list_(pa.int64())), ("text", pa.list_(pa.string())), ("output_tokens", pa.list_(pa.list_(pa.int64()))),
                    ("text_post_processed", pa.list_(pa.string())), ("reasonings", pa.list_(pa.string())), ("logprobs", pa.list_(pa.float64())),
                    ("argmax_logits_eq_gold", pa.list_(pa.bool_())), ("truncated_tokens_count", pa.int64()), ("padded_tokens_count", pa.int64()),
                ]
            ),
        ),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """One problem with the k responses to it."""

    item: Item
    task: str
    """The benchmark, with `_dev` for problems that are kept apart."""
    place: int
    """Of the problem in its task."""
    prompt: str
    """The user's message, before any chat template."""
    texts: list[str]
    extracted: list[str]
    correct: list[bool]

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / len(self.correct)


def export_samples(cell: Cell, responses: Artifact, evaluated: Artifact, to: Path, form: str) -> int:
    """Writes results and samples of a cell's evaluation into the folder `to`; returns the number of responses.

    Raises InputError where responses are of other problems than the benchmarks hold.
    """
    answered = list(_answered(cell, responses, evaluated))
    results = json.loads(evaluated.file("results.json").read_text(encoding="utf-8"))
    seconds = float(evaluated.manifest.get("finished") or 0.0)
    date = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    FORMATS[form](answered, results, re.sub(r"[\"<>:/|\\?*\[\]]+", "__", cell.label), date, to)
    return sum(len(one.texts) for one in answered)


def _answered(cell: Cell, responses: Artifact, evaluated: Artifact) -> Iterator[Answered]:
    config = build(Config, cell.config)
    found: dict[tuple[str, str], list[tuple[str, str, bool]]] = {}
    drawn = responses.table("responses", ["benchmark", "problem_id", "text"])
    judged = evaluated.table("verdicts", ["extracted", "correct"])
    columns = [drawn[name].to_pylist() for name in drawn.column_names] + [judged[name].to_pylist() for name in judged.column_names]
    for benchmark, problem, *answer in zip(*columns, strict=True):
        found.setdefault((benchmark, problem), []).append((answer[0], answer[1], bool(answer[2])))
    known = {(item.benchmark, item.problem_id): item for item in items(config.evaluation)}
    strays = [name for name in found if name not in known]
    if strays:
        raise InputError(f"{cell.label}: its responses are to {'/'.join(strays[0])}, which the benchmark no longer holds")
    places: dict[str, int] = {}
    for name, item in known.items():
        if name in found:
            task = f"{item.benchmark}_dev" if item.dev else item.benchmark
            texts, extracted, correct = map(list, zip(*found[name], strict=True))
            places[task] = places.get(task, -1) + 1
            prompt = messages(config.model.template, item.question)[-1]["content"]
            yield Answered(item, task, places[task], prompt, texts, extracted, correct)


def _lm_eval(answered: list[Answered], results: dict[str, Any], model: str, date: str, to: Path) -> None:
    """`<model>/results_<date>.json` and `<model>/samples_<task>_<date>.jsonl`, a line a problem."""
    folder = to / model
    folder.mkdir()
    for settings in results["configs"].values():
        settings["metric_list"] = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    config = {"model_args": "", **results["config"]}
    whole = {**results, "config": config, "model_name": model, "model_name_sanitized": model}
    (folder / f"results_{date}.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for task in dict.fromkeys(one.task for one in answered):
        with (folder / f"samples_{task}_{date}.jsonl").open("w", encoding="utf-8") as stream:
            for one in answered:
                if one.task == task:
                    stream.write(json.dumps(_sample(one, config), ensure_ascii=False) + "\n")


def _sample(one: Answered, config: Mapping[str, Any]) -> dict[str, Any]:
    doc = {"problem_id": one.item.problem_id, "question": one.item.question, "answer": one.item.gold}
    return {
        "doc_id": one.place,
        "doc": doc,
        "target": one.item.gold,
        "arguments": {"gen_args_0": {"arg_0": one.prompt, "arg_1": config.get("gen_kwargs") or {}}},
        "resps": [one.texts],
        "filtered_resps": [one.extracted],
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(one.prompt),
        "target_hash": _hash(one.item.gold),
        "acc": one.accuracy,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _lighteval(answered: list[Answered], results: dict[str, Any], model: str, date: str, to: Path) -> None:
    """`results/<model>/results_<date>.json` and `details/<model>/<date>/details_<task>|0_<date>.parquet`, a row a problem."""
    shown, details = to / "results" / model, to / "details" / model / date
    shown.mkdir(parents=True)
    details.mkdir(parents=True)
    tasks = {name: {"acc": found["acc,none"], "acc_stderr": found["acc_stderr,none"]} for name, found in results["results"].items()}
    general = {"model_name": model, "model_config": {"model_name": model, "generation_parameters": results["config"].get("gen_kwargs")}}
    whole = {
        "config_general": general,
        "results": {f"{name}|0": {key: value for key, value in found.items() if value != "N/A"} for name, found in tasks.items()},
        "versions": {f"{name}|0": version for name, version in results["versions"].items()},
        "config_tasks": {f"{name}|0": settings for name, settings in results["configs"].items()},
        "summary_tasks": {},
        "summary_general": {},
    }
    (shown / f"results_{date}.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for task in dict.fromkeys(one.task for one in answered):
        rows = [_detail(one) for one in answered if one.task == task]
        pq.write_table(pa.Table.from_pylist(rows, schema=DETAIL), details / f"details_{task}|0_{date}.parquet")


def _detail(one: Answered) -> dict[str, Any]:
    doc = {"query": one.prompt, "choices": [one.item.gold], "gold_index": 0, "task_name": f"{one.task}|0", "id": one.item.problem_id}
    response = {
        "input": one.prompt, "input_tokens": [], "text": one.texts, "output_tokens": [], "text_post_processed": one.extracted, "reasonings": [], "logprobs": [],
        "argmax_logits_eq_gold": [], "truncated_tokens_count": 0, "padded_tokens_count": 0,
    }  # fmt: skip
    return {"doc": doc, "metric": {"acc": one.accuracy}, "model_response": response}


FORMATS: Mapping[str, Callable[[list[Answered], dict[str, Any], str, str, Path], None]] = {"lm-eval": _lm_eval, "lighteval": _lighteval}
