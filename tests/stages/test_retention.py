"""How much of the native trace an arm keeps, as a judge rates it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from qup.candidates.judging import read_ratings
from qup.config.schema import LabOracle as LabSettings
from qup.config.schema import Oracle, Retention
from qup.config.views import RetentionView
from qup.errors import BudgetExceeded, InputError
from qup.lab.oracle import LabOracle
from qup.oracle.asks import Request
from qup.oracle.completions import Reply
from qup.records import STREAM
from qup.stages import retention
from qup.store import Artifact
from qup.text.prompts import ORACLE_PROMPTS, fill
from tests.helpers.artifacts import artifact, context, rows
from tests.stages.judges import ALIGNED_IDS, inputs, judged_by, native, shown

GOOD = json.dumps({"definitions": 5, "equations": 4, "assumptions": 3, "trial_steps": 2, "overall": 4})
JUDGE = Oracle(name="judge", backend="openai", model="m", usd_per_million_input=1000.0)


def view(sample: int = 100, rating: str = "reference", **settings: Any) -> RetentionView:
    return RetentionView(JUDGE, Retention(sample=sample, rating=rating), seed=7, **settings)


def stage(made: dict[str, Artifact], arm: str) -> dict[str, Artifact]:
    return {name: made[name] for name in ("problems", "solvable", "rollouts", "aligned")} | {"stream": made[f"stream.{arm}"]}


def rated(
    root: Path, name: str, made: dict[str, Artifact], arm: str, judging: RetentionView
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    ctx = context(root, name)
    return retention.run(judging, stage(made, arm), ctx), pq.read_table(ctx.out / "retention.parquet").to_pylist()


def test_every_sampled_problem_is_rated_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = judged_by(monkeypatch, lambda request, n: GOOD)
    metrics, table = rated(tmp_path, "one", inputs(tmp_path, "refined"), "refined", view())
    assert [row["problem_id"] for row in table] == ALIGNED_IDS
    assert {tuple(row.values())[1:] for row in table} == {(4.0, 5.0, 4.0, 3.0, 2.0)}
    assert (metrics["retention"], metrics["definitions"], metrics["n"], metrics["n_failed"]) == (4.0, 5.0, 11, 0)
    assert (metrics["input_tokens"], metrics["usd"]) == (1100, pytest.approx(1.1))
    assert sum(backend.sent.values()) == 11
    json.dumps(metrics, allow_nan=False)


def test_the_judge_is_told_which_trace_is_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(request: Request, n: int) -> str:
        said, id = request.ask.messages[-1]["content"], request.ask.id
        assert f"<reference>\n{native(id)}\n</reference>\n\n<solution>\na of {id}\n</solution>" in said
        return GOOD

    backend = judged_by(monkeypatch, judge)
    metrics, _ = rated(tmp_path, "a", inputs(tmp_path, "a"), "a", view())
    assert sum(backend.sent.values()) == 11 and list(metrics["prompts"]) == ["judge"]


def test_a_judge_that_is_told_rates_no_addition_down() -> None:
    native_trace = "13 pens\n13 - 2 = 11\nanswer : 11"
    longer = f"hmm let us check this slowly again\n{native_trace}\n11 + 0 = 11"
    said = {}
    for task, parts in (
        ("judge", {"solution": longer, "reference": native_trace}),
        ("judge_symmetric", {"solutions": [("A", native_trace), ("B", longer)]}),
    ):
        messages = fill(ORACLE_PROMPTS[task], problem="?", **parts)  # type: ignore[arg-type]
        answer = LabOracle.answer(messages, seed=0, attempt=0, cfg=LabSettings())
        said[task] = json.loads(answer["choices"][0]["message"]["content"])
    assert set(said["judge"].values()) == {5}
    assert said["judge_symmetric"]["overall"] < 5


def test_without_a_reference_the_two_traces_are_shown_in_an_order_that_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: dict[str, dict[str, bool]] = {"a": {}, "b": {}}

    def judge(request: Request, n: int) -> str:
        pair, id = shown(request), request.ask.id
        (arm,) = {text.split()[0] for text in pair.values()} - {"native"}
        assert sorted(pair) == ["A", "B"] and sorted(pair.values()) == sorted([native(id), f"{arm} of {id}"])
        orders[arm][id] = pair["A"] == native(id)
        return GOOD

    judged_by(monkeypatch, judge)
    made = inputs(tmp_path, "a", "b")
    for arm in orders:
        rated(tmp_path, arm, made, arm, view(rating="symmetric"))
    assert orders["a"] == orders["b"]
    assert 2 <= sum(orders["a"].values()) <= 9


def test_the_sample_is_the_same_in_every_arm_and_a_larger_one_only_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_by(monkeypatch, lambda request, n: GOOD)
    made = inputs(tmp_path, "a", "b")
    few = [{row["problem_id"] for row in rated(tmp_path, arm, made, arm, view(4))[1]} for arm in ("a", "b")]
    more = {row["problem_id"] for row in rated(tmp_path, "more", made, "a", view(7))[1]}
    assert few[0] == few[1] and len(few[0]) == 4 and len(more) == 7
    assert few[0] < more and "p5" not in more


def test_what_the_judge_does_not_say_is_asked_again_then_nan_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(request: Request, n: int) -> str | Reply:
        if request.ask.id == "p1":
            return "I'd rather not."
        if request.ask.id == "p2" and request.ask.attempt == 0:
            return Reply(GOOD, "length", 100, 10)
        return GOOD

    backend = judged_by(monkeypatch, judge)
    metrics, table = rated(tmp_path, "one", inputs(tmp_path, "a"), "a", view())
    assert [row["problem_id"] for row in table if math.isnan(row["rating"])] == ["p1"]
    assert (metrics["n"], metrics["n_failed"], metrics["retention"]) == (10, 1, 4.0)
    assert sum(backend.sent.values()) == 11 + 2 + 1
    assert metrics["input_tokens"] == 1400


def test_a_judge_that_never_answers_gives_none_and_not_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_by(monkeypatch, lambda request, n: "?")
    metrics, _ = rated(tmp_path, "one", inputs(tmp_path, "a"), "a", view())
    assert (metrics["retention"], metrics["n"], metrics["n_failed"]) == (None, 0, 11)
    json.dumps(metrics, allow_nan=False)


def test_a_stage_that_ran_out_of_money_goes_on_from_the_stored_ratings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = judged_by(monkeypatch, lambda request, n: GOOD)
    made = inputs(tmp_path, "a")
    with pytest.raises(BudgetExceeded):
        rated(tmp_path, "one", made, "a", view(max_usd=0.5))
    metrics, _ = rated(tmp_path, "one", made, "a", view(max_usd=5.0))
    assert metrics["n"] == 11
    assert set(backend.sent.values()) == {1}
    assert metrics["spent"]["usd"] == pytest.approx(1.1), "over both runs"


def test_a_judged_problem_that_is_not_in_the_stream_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_by(monkeypatch, lambda request, n: GOOD)
    made = inputs(tmp_path, "a")
    made["stream.a"] = artifact(tmp_path, "stream", "empty", stream=rows(STREAM, []))
    with pytest.raises(InputError, match="problem 'p0' is to be judged, and is not in stream"):
        rated(tmp_path, "one", made, "a", view())


@pytest.mark.parametrize(
    ("text", "overall"),
    [
        (GOOD, 4.0),
        (f"```json\n{GOOD}\n```", 4.0),
        (f"Some thoughts {{x}}.\n{GOOD}\nDone.", 4.0),
        ('{"definitions": "5", "equations": 4.0, "assumptions": 3, "trial_steps": 2, "overall": "4"}', 4.0),
        ("definitions: 5\nequations: 4\nassumptions: 3\ntrial_steps: 2\noverall: 4", 4.0),
        ("**Definitions**: 5, **Equations**: 4, **Assumptions**: 3, **trial_steps**: 2", 3.5),
        ('{"definitions": 5, "equations": 4, "assumptions": 3, "trial_steps": 2}', 3.5),
        ('{"definitions": 5, "equations": 4, "assumptions": 3, "overall": 4}', None),
        ('{"definitions": 6, "equations": 4, "assumptions": 3, "trial_steps": 2, "overall": 4}', None),
        ('{"definitions": 5, "equations": 4, "assumptions": 3, "trial_steps": 2, "overall": 0}', 3.5),
        ("", None),
        ("{" * 5000, None),
    ],
)
def test_ratings_are_read_leniently(text: str, overall: float | None) -> None:
    ratings = read_ratings(text)
    assert (None if ratings is None else ratings["overall"]) == overall
