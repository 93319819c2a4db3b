"""Pools of candidates: the student's own, given ones, and those an Oracle writes."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qup.config.schema import Model, Oracle, Refinement, Source
from qup.config.views import CandidatesView
from qup.draws import choose
from qup.errors import InputError
from qup.oracle import Answer
from qup.records import CANDIDATES, PROBLEMS, SOLVABLE, TOTALS
from qup.stages import candidates
from tests.helpers.artifacts import artifact, context, judged, rows, run_sharded
from tests.helpers.tiny import make_tiny

IDS = [f"p{index}" for index in range(9)]
SOLVABLES = [name for index, name in enumerate(IDS) if index != 4]
N = 4


def answer(text, finish="stop"):
    return Answer(text, finish, 10, 5, 0.25, "key", False)


class FakeOracle:
    """Answers by a function of (ask); notes what it was asked."""

    batched = False

    def __init__(self, reply):
        self.reply, self.asked = reply, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, asks):
        for ask in asks:
            if ask is not None:
                self.asked.append(ask)
                yield ask, self.reply(ask)


@pytest.fixture
def fake(monkeypatch):
    def install(reply):
        oracle = FakeOracle(reply)
        monkeypatch.setattr("qup.oracle.stage_oracle", lambda *_, **__: oracle)
        return oracle

    return install


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(path=str(make_tiny(tmp_path_factory.mktemp("tiny"))), template="tokenizer")


@pytest.fixture
def inputs(tmp_path):
    problems = [
        {"problem_id": name, "question": f"find {p}", "answer": str(p), "solution": f"so \\boxed{{{p if p != 3 else 99}}}" if p else ""}
        for p, name in enumerate(IDS)
    ]
    rollouts = []
    for p, name in enumerate(IDS):
        for c in range(N):
            good = (p + c) % 2 == 0 and p != 4
            text = f"we get then  \n\n\n\n\\boxed{{{p if good else 50}}}"
            rollouts.append(
                {"problem_id": name, "sample": c, "text": text, "correct": good, "eligible": good, "verdict": "equal" if good else "wrong"}
            )
    solvable = []
    for p, name in enumerate(IDS):
        good = [c for c in range(N) if (p + c) % 2 == 0]
        if p != 4:
            solvable.append({"problem_id": name, "n_eligible": 2, "kept": good[choose(3, name, 2)]})
    return {
        "problems": artifact(tmp_path, "problems", problems=rows(PROBLEMS, problems)),
        **judged(tmp_path, rollouts, token_ids=[], logprob_T=[], finish="stop", extracted="x"),
        "solvable": artifact(tmp_path, "solvable", solvable=rows(SOLVABLE, solvable, n_samples=N, n_correct=2)),
    }


def make(root, inputs, model, source="student", refinement="none", *, name="c", shard=3, ctx=None, round=0, **settings):
    source_settings = {key: settings.pop(key) for key in ("samples", "path", "cleaning", "id", "text") if key in settings}
    view = CandidatesView(
        Source(source, **source_settings),
        Refinement(refinement, **settings),
        Oracle("fake", "openai", shard_size=shard),
        3,
        "boxed",
        5.0,
        model,
        round=round,
    )
    made = run_sharded(candidates, view, inputs, ctx or context(root, name), "candidates")
    return made.metrics, made.table("candidates").to_pylist(), made


def test_student_keeps_every_rollout_of_solvable_problems_and_cleans_the_eligible(tmp_path, inputs, model, monkeypatch):
    monkeypatch.setattr(candidates, "LOCAL_SHARD", 3)
    metrics, table, made = make(tmp_path, inputs, model)
    assert made.table("candidates").schema.equals(CANDIDATES)
    assert [(entry["problem_id"], entry["candidate"]) for entry in table] == [(name, c) for name in SOLVABLES for c in range(N)]
    assert metrics["n"] == 32
    assert metrics["n_eligible"] == 16
    assert metrics["n_problems_eligible"] == metrics["n_solvable"] == 8
    for entry in table:
        assert entry["text"].startswith("we get then\n\n\\boxed" if entry["eligible"] else "we get then  \n\n\n\n\\boxed")
        assert entry["rules"] == (["trailing_space", "blank_lines"] if entry["eligible"] else [])
    assert metrics["cleaning"] == {"blank_lines": 16, "trailing_space": 16}
    assert metrics["attempts"] == 0


def test_cleaning_none_leaves_texts_as_they_are(tmp_path, inputs, model):
    metrics, table, _ = make(tmp_path, inputs, model, cleaning="none")
    assert metrics["cleaning"] == {}
    assert all(entry["text"].startswith("we get then  \n\n\n\n") for entry in table)


def test_dataset_solutions_are_verified(tmp_path, inputs, model):
    metrics, table, _ = make(tmp_path, inputs, model, "dataset")
    found = {entry["problem_id"]: entry["verdict"] for entry in table}
    assert set(found) == set(SOLVABLES) - {"p0"}
    assert found["p3"] == "wrong"
    assert metrics["n_eligible"] == 6
    assert metrics["without_solution"] == 1


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_of_traces_by_problem_id(tmp_path, inputs, model, suffix):
    entries = [{"pid": "p2", "trace": "\\boxed{2}"}, {"pid": "p1", "trace": "\\boxed{1}"}, {"pid": "p2", "trace": "\\boxed{7}"}]
    entries += [{"pid": "p4", "trace": "\\boxed{4}"}, {"pid": "zzz", "trace": "\\boxed{4}"}]
    path = tmp_path / f"traces.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(entries), path)
    else:
        path.write_text("\n".join(map(json.dumps, entries)))
    metrics, table, _ = make(tmp_path, inputs, model, "file", path=str(path), id="pid", text="trace")
    assert [(entry["problem_id"], entry["candidate"], entry["verdict"]) for entry in table] == [
        ("p1", 0, "equal"),
        ("p2", 0, "equal"),
        ("p2", 1, "wrong"),
    ]
    assert (metrics["unknown_ids"], metrics["unsolvable_ids"], metrics["without_trace"]) == (1, 1, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"problem_id": "p1", "text": "a"}\n{"problem_id": 3,\n', r"row 2: not valid JSON"),
        ('{"problem_id": "p1", "txt": "a"}\n', r"traces.jsonl: no column 'text' \(source.text\); it has problem_id, txt"),
        ('{"problem_id": null, "text": "a"}\n', r"row 1: .*found None"),
        ("", r"holds no trace"),
        ('{"problem_id": "other", "text": "a"}\n', r"none of its 1 ids \(such as 'other'"),
    ],
)
def test_bad_trace_files_are_named(tmp_path, inputs, model, content, message):
    path = tmp_path / "traces.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        make(tmp_path, inputs, model, "file", path=str(path))
    with pytest.raises(InputError, match=r"there is no such file"):
        make(tmp_path, inputs, model, "file", path=str(tmp_path / "none.jsonl"), name="other")


def solve(ask):
    """The right answer, from the question."""
    question = ask.messages[-1]["content"].split("find ")[1].split()[0]
    return answer(f"so we have \\boxed{{{question}}}")


def test_refine_hands_over_the_kept_raw_trace(tmp_path, inputs, model, fake):
    oracle = fake(solve)
    metrics, table, _ = make(tmp_path, inputs, model, "student", "refine")
    kept = dict(zip(SOLVABLES, inputs["solvable"].table("solvable")["kept"].to_pylist(), strict=True))
    assert {entry["problem_id"]: entry["candidate"] for entry in table} == kept
    assert all("we get then  \n\n\n\n\\boxed" in ask.messages[-1]["content"] for ask in oracle.asked)
    assert all(ask.messages[0]["content"].startswith("Task: refine") for ask in oracle.asked)
    assert metrics["n_eligible"] == len(oracle.asked) == 8
    assert (metrics["attempts"], metrics["input_tokens"], metrics["usd"]) == (8, 80, 2.0)
    assert 0 < metrics["mean_edit_distance"] < 1


def test_failures_are_told_apart_retried_and_counted(tmp_path, inputs, model, fake):
    replies = {
        "p0": ["wrong", "right"],
        "p1": ["refused", "cut", "right"],
        "p2": ["empty", "echo", "wrong"],
        "p3": ["wrong", "refused", "empty"],
    }

    def reply(ask):
        problem = ask.id.split("/")[0]
        match replies.get(problem, ["right"] * 3)[ask.attempt]:
            case "right":
                return solve(ask)
            case "wrong":
                return answer("so \\boxed{47}")
            case "refused":
                return answer("", "refused")
            case "cut":
                return answer("so we", "length")
            case "empty":
                return answer("  ")
            case _:
                return answer(f"<problem>\nfind {problem[1:]}\n</problem>")

    oracle = fake(reply)
    metrics, table, _ = make(tmp_path, inputs, model, "student", "refine", retries=2)
    found = {entry["problem_id"]: entry for entry in table}
    assert [(found[name]["verdict"], found[name]["attempts"], found[name]["status"]) for name in ("p0", "p1", "p2", "p3")] == [
        ("equal", 2, "ok"),
        ("equal", 3, "ok"),
        ("wrong", 3, "flagged"),
        ("wrong", 3, "flagged"),
    ]
    assert found["p3"]["text"] == "so \\boxed{47}"
    assert metrics["failures"] == {"cut_off": 1, "echo": 1, "empty": 2, "refused": 2, "wrong": 3}
    assert metrics["n_eligible"] == 6
    assert Counter(ask.attempt for ask in oracle.asked) == {0: 8, 1: 4, 2: 3}
    assert found["p2"]["output_tokens"] == 15


def test_an_unchanged_trace_is_marked(tmp_path, inputs, model, fake):
    fake(lambda ask: answer(ask.messages[-1]["content"].split("<solution>\n")[1].split("\n</solution>")[0]))
    metrics, table, _ = make(tmp_path, inputs, model, "student", "style_aligned")
    assert metrics["unchanged"] == 8
    assert metrics["mean_edit_distance"] == 0
    assert {entry["status"] for entry in table} == {"unchanged"}


def test_input_all_refines_every_verified_candidate(tmp_path, inputs, model, fake):
    fake(solve)
    metrics, table, _ = make(tmp_path, inputs, model, "student", "refine", input="all")
    assert [(entry["problem_id"], entry["candidate"]) for entry in table] == [
        (name, c) for name in SOLVABLES for c in range(N) if (int(name[1]) + c) % 2 == 0
    ]
    assert metrics["n"] == 16


def test_samples_of_the_oracle_are_asked_under_attempts_of_their_own(tmp_path, inputs, model, fake):
    oracle = fake(solve)
    _, table, _ = make(tmp_path, inputs, model, "oracle", samples=2)
    assert [(entry["problem_id"], entry["candidate"]) for entry in table] == [(name, c) for name in SOLVABLES for c in range(2)]
    assert {ask.attempt for ask in oracle.asked} == {0, 1000}
    assert all(ask.task == "synthesize" and "<solution>" not in ask.messages[-1]["content"] for ask in oracle.asked)


def test_other_sources_are_refined_from_their_own_pool_with_the_native_trace_as_style(tmp_path, inputs, model, fake):
    *_, inputs["base"] = make(tmp_path, inputs, model, "dataset", name="base")
    oracle = fake(solve)
    metrics, table, _ = make(tmp_path, inputs, model, "dataset", "style_aligned")
    assert len(table) == 6
    assert metrics["without_input"] == 2
    for ask in oracle.asked:
        content = ask.messages[-1]["content"]
        assert "<solution>\nso \\boxed" in content
        assert "<reference>\nwe get then" in content
    oracle.asked.clear()
    make(tmp_path, inputs, model, "dataset", "refine", name="plain")
    assert all("<reference>" not in ask.messages[-1]["content"] for ask in oracle.asked)


def test_a_kill_loses_one_shard_and_the_shard_size_stays(tmp_path, inputs, model, fake):
    def stop_late(ask):
        if ask.id.startswith("p7"):
            raise KeyboardInterrupt
        return solve(ask)

    ctx = context(tmp_path, "killed")
    fake(stop_late)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, inputs, model, "student", "refine", ctx=ctx)
    oracle = fake(solve)
    metrics, table, _ = make(tmp_path, inputs, model, "student", "refine", ctx=ctx, shard=1)
    assert {ask.id.split("/")[0] for ask in oracle.asked} == {"p7", "p8"}
    assert table == make(tmp_path, inputs, model, "student", "refine", name="whole")[1]
    assert metrics["attempts"] == 8


def nll(root, name, values):
    entries = [{"problem_id": problem, "candidate": c, "nll": value * 10} for (problem, c), value in values.items()]
    return artifact(root, "perplexity", name, totals=rows(TOTALS, entries, pool="", n_prompt=1, n_tokens=10, n_chars=5, rank=9))


def test_later_rounds_ask_only_what_is_open(tmp_path, inputs, model, fake):
    kept = dict(zip(SOLVABLES, inputs["solvable"].table("solvable")["kept"].to_pylist(), strict=True))
    oracle = fake(lambda ask: answer("so \\boxed{47}") if ask.id.startswith("p1") else solve(ask))
    settings = {"tries": 3, "accept": "perplexity", "margin": 0.5}
    inputs["nll.native"] = nll(tmp_path, "native", {(name, kept[name]): 1.0 for name in SOLVABLES})
    _, first, inputs["round.1"] = make(tmp_path, inputs, model, "student", "refine", name="r1", round=1, **settings)
    assert len(oracle.asked) == 8
    near = {"p0": 1.5, "p2": 1.51, "p3": 0.2}
    inputs["nll.1"] = nll(
        tmp_path, "one", {(e["problem_id"], e["candidate"]): near.get(e["problem_id"], 1.0) for e in first if e["eligible"]}
    )
    oracle.asked.clear()
    _, second, inputs["round.2"] = make(tmp_path, inputs, model, "student", "refine", name="r2", round=2, **settings)
    assert {entry["problem_id"] for entry in second} == {"p1", "p2"}
    assert {ask.attempt for ask in oracle.asked} == {1}
    inputs["nll.2"] = nll(tmp_path, "two", {(e["problem_id"], e["candidate"]): 0.9 for e in second if e["eligible"]})
    oracle.asked.clear()
    oracle.reply = solve
    _, third, inputs["round.3"] = make(tmp_path, inputs, model, "student", "refine", name="r3", round=3, **settings)
    assert {entry["problem_id"] for entry in third} == {"p1"}
    inputs["nll.3"] = nll(tmp_path, "three", {("p1", third[0]["candidate"]): 1.2})
    oracle.asked.clear()
    metrics, fourth, _ = make(tmp_path, inputs, model, "student", "refine", name="r4", round=4, **settings)
    assert (fourth, oracle.asked, metrics["n"]) == ([], [], 0)
