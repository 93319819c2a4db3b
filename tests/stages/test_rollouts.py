"""The rollouts stage: rows, counts, shards, resume, and what is refused before anything is drawn."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from qup.config.schema import Model, Sampling
from qup.config.views import RolloutsView, VerdictsView
from qup.errors import InputError, Interrupted
from qup.models import encode_prompt, encode_response, load_model, load_tokenizer, train_stop_id
from qup.records import PROBLEMS, ROLLOUTS, VERDICTS
from qup.scoring.nll import Encoded, NllScorer
from qup.stages import rollouts, verdicts
from tests.helpers.artifacts import artifact, context, publish, rows, run_sharded
from tests.helpers.tiny import make_tiny

N, P = 4, 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def view(folder):
    sampling = Sampling(n=N, max_new_tokens=30, min_new_tokens=8, seed=5, rows=8, shard_size=3)
    return RolloutsView(Model(path=str(folder), template="tokenizer"), sampling)


@pytest.fixture
def inputs(tmp_path):
    return problems(tmp_path, ["1000"] * P)


def problems(root, golds, name="a"):
    entries = [
        {"problem_id": f"p{index}", "question": f"find {index} + 2 ?" + " so" * (index % 3), "answer": gold}
        for index, gold in enumerate(golds)
    ]
    return {"problems": artifact(root, "problems", name, problems=rows(PROBLEMS, entries, solution=""))}


@pytest.fixture
def lucky(tmp_path, view, inputs):
    """The same problems with gold answers that some samples give: draws do not depend on them."""
    table = judge(tmp_path, inputs | {"rollouts": run(tmp_path, view, inputs, "first")}, "first-judged").table("verdicts").to_pylist()
    return problems(
        tmp_path, [next((row["extracted"] for row in table[N * p : N * p + N] if row["extracted"]), "1000") for p in range(P)], "lucky"
    )


def with_sampling(view, **changes):
    return replace(view, sampling=replace(view.sampling, **changes))


def run(root, view, inputs, name="ctx", **settings):
    return run_sharded(rollouts, view, inputs, context(root, name, **settings), "rollouts")


def judge(root, inputs, name="judged", extraction="last_number", timeout_s=5.0):
    return run_sharded(verdicts, VerdictsView(extraction, timeout_s), inputs, context(root, name), "verdicts")


def test_rows_stand_in_the_problems_order_with_every_sample(tmp_path, view, lucky):
    table = run(tmp_path, view, lucky).table("rollouts")
    assert table.schema.equals(ROLLOUTS)
    assert table["problem_id"].to_pylist() == [f"p{index}" for index in range(P) for _ in range(N)]
    assert table["sample"].to_pylist() == list(range(N)) * P
    for row in table.to_pylist():
        assert len(row["token_ids"]) == len(row["logprob_T"])
        assert (row["finish"] == "stop") == (row["token_ids"][-1] in (2, 6))


def test_verdicts_stand_in_the_rollouts_order(tmp_path, view, lucky, monkeypatch):
    drawn = run(tmp_path, view, lucky)
    whole = judge(tmp_path, lucky | {"rollouts": drawn}, "whole").table("verdicts")
    monkeypatch.setattr(verdicts, "SHARD", 3)
    table = judge(tmp_path, lucky | {"rollouts": drawn}).table("verdicts")
    assert table.schema.equals(VERDICTS)
    assert table.equals(whole)
    for row, response in zip(table.to_pylist(), drawn.table("rollouts").to_pylist(), strict=True):
        assert (row["problem_id"], row["sample"]) == (response["problem_id"], response["sample"])
        assert row["eligible"] == (row["correct"] and response["finish"] == "stop" and bool(response["text"].strip()))
        assert row["correct"] == (row["verdict"] in ("equal", "symbolic"))


def test_other_reading_of_the_answers_is_of_the_same_rollouts(tmp_path, view, lucky):
    drawn = lucky | {"rollouts": run(tmp_path, view, lucky)}
    assert judge(tmp_path, drawn).metrics["correct"] > 0
    assert judge(tmp_path, drawn, "boxed", "boxed").metrics["no_answer"] >= P * N - 1


def test_the_recorded_log_probabilities_are_those_that_perplexity_finds(tmp_path, view, inputs):
    """On uncleaned rollouts, encoded anew from their text, as issue 6 asks."""
    table = run(tmp_path, view, inputs).table("rollouts").to_pylist()
    questions = dict(zip(*inputs["problems"].table("problems").select(["problem_id", "question"]).to_pydict().values()))
    tokenizer, model = load_tokenizer(view.model), load_model(view.model)
    stop = train_stop_id(tokenizer, "tokenizer")
    alike = []
    for row in table:
        response = encode_response(tokenizer, row["text"], stop)
        if response == row["token_ids"]:  # else special tokens amid the text, or the other stop id
            prompt = encode_prompt(tokenizer, "tokenizer", questions[row["problem_id"]])
            alike.append((row["logprob_T"], Encoded(tuple(prompt), tuple(response))))
    assert len(alike) >= 3
    scored = NllScorer(model, batch_tokens=256, rank_cap=100).score([trace for _, trace in alike])
    for (recorded, _), found in zip(alike, scored, strict=True):
        assert np.allclose(recorded, -found.nll_T, atol=1e-4)


def test_counts_agree_with_the_table(tmp_path, view, lucky):
    made = run(tmp_path, view, lucky)
    judged = judge(tmp_path, lucky | {"rollouts": made})
    table = [one | other for one, other in zip(made.table("rollouts").to_pylist(), judged.table("verdicts").to_pylist(), strict=True)]
    metrics = made.metrics | judged.metrics
    json.dumps(metrics)
    assert metrics["n_problems"] == P
    assert metrics["n_samples"] == P * N
    assert metrics["tokens"] == sum(len(row["token_ids"]) for row in table)
    assert metrics["truncated"] == sum(row["finish"] == "length" for row in table)
    assert metrics["correct"] == sum(row["correct"] for row in table) > 0
    assert metrics["eligible"] == sum(row["eligible"] for row in table)
    assert metrics["correct_cut_off"] == sum(row["correct"] and row["finish"] == "length" for row in table)
    assert metrics["no_answer"] == sum(row["verdict"] == "no_answer" for row in table)
    per_problem = [sum(row["correct"] for row in table if row["problem_id"] == f"p{index}") for index in range(P)]
    assert metrics["correct_of_n"] == [per_problem.count(count) for count in range(N + 1)]


def test_the_manifest_says_what_the_draws_depended_on(tmp_path, view, inputs, caplog):
    metrics = run(tmp_path, with_sampling(view, max_new_tokens=250), inputs).metrics
    assert metrics["stop_ids"] == [2, 6]
    assert metrics["stop_tokens"] == ["<eos>", "<|end|>"]
    assert len(metrics["template_hash"]) == 64
    assert metrics["clamped"] == P
    assert f"{P} prompts leave less of the context than rollouts.sampling.max_new_tokens=250" in caplog.text
    caplog.clear()
    assert metrics["sampling"]["seed"] == 5
    assert metrics["generation"]["backend"] == "transformers"
    assert run(tmp_path, view, inputs, "b").metrics["clamped"] == 0
    assert "prompts leave less" not in caplog.text


def test_shards_workers_and_kills_change_no_byte(tmp_path, view, inputs):
    whole = run(tmp_path, view, inputs, "whole")
    ctx = context(tmp_path, "parts")
    assert rollouts.plan(view, inputs, ctx) == 3
    for worker in ([2], [0, 1]):
        rollouts.shard(view, inputs, ctx, worker)
    rollouts.merge(view, inputs, ctx)
    assert (ctx.out / "rollouts.parquet").read_bytes() == whole.file("rollouts.parquet").read_bytes()


def test_a_stop_keeps_finished_shards_and_the_next_run_goes_on(tmp_path, view, inputs):
    calls = []

    def stopping():
        calls.append(1)
        return ctx.has_shard(0)

    ctx = context(tmp_path, "cut", stopping=stopping)
    with pytest.raises(Interrupted):
        rollouts.shard(view, inputs, ctx, [0, 1, 2])
    assert [ctx.has_shard(index) for index in range(3)] == [True, False, False]
    done = []
    resumed = run(tmp_path, view, inputs, "cut", progress=lambda done_, total, unit: done.append((done_, total, unit)))
    assert resumed.file("rollouts.parquet").read_bytes() == run(tmp_path, view, inputs, "whole").file("rollouts.parquet").read_bytes()
    assert done[0] == (4, P, "problems")
    assert done[-1] == (P, P, "problems")


def test_prompts_that_do_not_fit_are_listed_before_anything_is_drawn(tmp_path, view, inputs):
    ctx = context(tmp_path)
    tight = replace(view, model=replace(view.model, context=17))
    with pytest.raises(
        InputError,
        match=r"prompts of 2 problems leave fewer than sampling.min_new_tokens=8 of the context of 17 tokens: p2 \(leaves 7\), p5",
    ):
        rollouts.shard(tight, inputs, ctx, [0])
    assert not ctx.has_shard(0)


def test_a_shard_drawn_with_another_template_is_refused(tmp_path, view, inputs):
    ctx = context(tmp_path)
    rollouts.shard(view, inputs, ctx, [0, 1])
    rollouts.shard(replace(view, model=replace(view.model, template="qwen_boxed")), inputs, ctx, [2])
    with pytest.raises(InputError, match="different template, template_hash"):
        rollouts.merge(view, inputs, ctx)


def test_the_table_carries_no_facts_of_shards(tmp_path, view, inputs):
    assert b"qup.generation" not in (pq.read_schema(run(tmp_path, view, inputs).file("rollouts.parquet")).metadata or {})


def test_a_lab_students_weights_come_from_its_artifact(tmp_path, view, inputs, folder):
    made = make_tiny(tmp_path / "student-a" / "model", seed=9)
    student = publish(tmp_path / "student-a", "student")
    by_artifact = run(tmp_path, replace(view, model=replace(view.model, path="")), inputs | {"student": student}, "a")
    by_path = run(tmp_path, replace(view, model=replace(view.model, path=str(made))), inputs, "b")
    assert by_artifact.table("rollouts").equals(by_path.table("rollouts"))
    assert not by_path.table("rollouts").equals(run(tmp_path, view, inputs, "c").table("rollouts"))


def test_all_settings_of_sampling_are_told(view):
    told = set(rollouts_facts(view))
    assert {field.name for field in dataclasses.fields(Sampling)} - told == {
        "base_url",
        "served_model",
        "api_key_env",
        "shard_size",
        "min_new_tokens",
    }


def rollouts_facts(view):
    from qup.generation.responses import sampling_facts

    return sampling_facts(view.sampling)


@pytest.mark.parametrize("shard_size", [1, 3])
def test_problems_without_room_are_left_out_and_counted_where_that_is_asked(tmp_path, view, inputs, shard_size):
    tight = replace(with_sampling(view, shard_size=shard_size), model=replace(view.model, context=17), too_long="exclude")
    drawn = run(tmp_path, tight, inputs)
    assert drawn.table("rollouts")["problem_id"].unique().to_pylist() == ["p0", "p1", "p3", "p4", "p6"]
    assert (drawn.metrics["n_problems"], drawn.metrics["n_too_long"]) == (5, 2)
    judged = judge(tmp_path, inputs | {"rollouts": drawn})
    assert judged.table("verdicts").num_rows == 5 * N


def test_where_no_problem_has_room_that_is_an_error_all_the_same(tmp_path, view, inputs):
    with pytest.raises(InputError, match="prompts of 7 problems"):
        run(tmp_path, replace(view, model=replace(view.model, context=10), too_long="exclude"), inputs)


def test_a_correct_response_that_was_cut_off_is_eligible_where_no_stop_is_required(tmp_path, view, lucky):
    drawn = lucky | {"rollouts": run(tmp_path, with_sampling(view, max_new_tokens=9), lucky)}
    strict = judge(tmp_path, drawn, "strict")
    table = run_sharded(verdicts, VerdictsView("last_number", 5.0, stop_required=False), drawn, context(tmp_path, "open"), "verdicts")
    assert table.metrics["eligible"] == strict.metrics["eligible"] + strict.metrics["correct_cut_off"] > strict.metrics["eligible"]
