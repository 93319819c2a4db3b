"""The perplexity stage: what it reads, what it gathers, what survives a kill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qup.config.schema import Model, Perplexity
from qup.config.views import PerplexityView
from qup.errors import InputError, Interrupted
from qup.models import encode_prompt, encode_response, load_model, load_tokenizer, train_stop_id
from qup.records import CANDIDATES, PROBLEMS, ROLLOUTS, SOLVABLE, STREAM, TOKENS, TOTALS, TRACES
from qup.stages import perplexity
from tests.helpers.artifacts import CANDIDATE, artifact, context, rows, run_sharded
from tests.helpers.tiny import break_weights, make_tiny

IDS = [f"p{index}" for index in range(7)]
N = 3


def text(p, c):
    return f"so we have {p} + {c} = {p + c} . the answer is \\boxed{{{p + c}}}" + " then" * (p * c % 5)


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    model = Model(path=str(make_tiny(tmp_path_factory.mktemp("tiny"))), template="tokenizer")
    return PerplexityView(model, Perplexity(batch_tokens=120, shard_size=4, truncate_at=20))


@pytest.fixture
def inputs(tmp_path):
    problems = [{"problem_id": name, "question": f"find {p} ?"} for p, name in enumerate(IDS)]
    candidates = [
        {"problem_id": name, "candidate": c, "text": text(p, c), "eligible": (p + c) % 3 > 0}
        for p, name in enumerate(IDS)
        for c in range(N)
    ]
    return {
        "problems": artifact(tmp_path, "problems", problems=rows(PROBLEMS, problems, answer="1", solution="")),
        "traces": artifact(tmp_path, "candidates", "student", candidates=rows(CANDIDATES, candidates, **CANDIDATE)),
    }


def stream(root, entries):
    full = [
        {"pool": pool, "problem_id": name, "candidate": c, "text": words, "question": f"find {name[1:]} ?"}
        for pool, name, c, words in entries
    ]
    return artifact(
        root,
        "stream",
        stream=rows(STREAM, full, teacher="t", weight=1.0, turns=[], correct=True, status="ok", random_candidate="", n_eligible=1),
    )


def run(root, view, inputs, name="ctx"):
    return run_sharded(perplexity, view, inputs, context(root, name), "perplexity")


@torch.inference_mode()
def expected(view, question, words):
    tokenizer, model = load_tokenizer(view.model), load_model(view.model)
    prompt = encode_prompt(tokenizer, view.model.template, question)
    response = encode_response(tokenizer, words, train_stop_id(tokenizer, view.model.template))
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].float()
    return response, -torch.log_softmax(logits, -1)[torch.arange(len(response)), response].numpy(), len(prompt)


def test_every_eligible_candidate_gets_its_nll_with_the_stop_token(tmp_path, view, inputs):
    made = run(tmp_path, view, inputs)
    table = made.table("traces").to_pylist()
    assert made.table("traces").schema.equals(TRACES)
    assert made.table("totals").schema.equals(TOTALS)
    assert made.table("tokens").schema.equals(TOKENS)
    assert [(entry["problem_id"], entry["candidate"]) for entry in table] == [
        (name, c) for p, name in enumerate(IDS) for c in range(N) if (p + c) % 3 > 0
    ]
    for entry in table:
        p, c = int(entry["problem_id"][1:]), entry["candidate"]
        ids, nll, n_prompt = expected(view, f"find {p} ?", text(p, c))
        assert (entry["pool"], entry["token_ids"], entry["n_prompt"], entry["n_chars"]) == ("", ids, n_prompt, len(text(p, c)))
        np.testing.assert_allclose(entry["nll_T"], nll, rtol=1e-4, atol=1e-5)
    total = sum(sum(entry["nll_T"][:-1]) for entry in table)
    assert made.metrics["nll"] == pytest.approx(total / sum(len(entry["nll_T"]) - 1 for entry in table))
    assert made.metrics["n"] == 14
    assert {entry["token"] for entry in made.table("tokens").to_pylist()} >= {"so", "\\boxed{", "}"}


def test_shards_and_rows_change_nothing_but_rounding(tmp_path, view, inputs):
    first = run(tmp_path, view, inputs).table("totals")
    other = run(tmp_path, PerplexityView(view.model, Perplexity(batch_tokens=30, shard_size=100)), inputs, "other").table("totals")
    np.testing.assert_allclose(first["nll"], other["nll"], rtol=1e-5)
    assert first["rank"].equals(other["rank"])


def test_a_kill_between_shards_gives_the_same_bytes(tmp_path, view, inputs):
    stops = iter([False, False, True])
    ctx = context(tmp_path, "killed", stopping=lambda: next(stops, False))
    with pytest.raises(Interrupted):
        run_sharded(perplexity, view, inputs, ctx, "perplexity")
    assert sum(ctx.has_shard(index) for index in range(4)) == 2
    resumed = run_sharded(perplexity, view, inputs, ctx, "perplexity")
    assert resumed.table("traces").equals(run(tmp_path, view, inputs).table("traces"))


def test_a_stream_is_gathered_from_its_pools_and_only_the_rest_is_computed(tmp_path, view, inputs, monkeypatch):
    pool = run(tmp_path, view, inputs)
    oracle = {
        **inputs,
        "traces": artifact(
            tmp_path,
            "candidates",
            "oracle",
            candidates=rows(CANDIDATES, [{"problem_id": "p3", "candidate": 0, "text": text(1, 1)}], **CANDIDATE),
        ),
    }
    other = run(tmp_path, view, oracle, "oracle")
    chosen = [
        ("student", "p0", 1, text(0, 1)),
        ("student", "p1", 1, text(1, 1)),
        ("oracle", "p3", 0, text(1, 1)),
        ("native", "p5", 0, "so then"),
    ]
    given = {"problems": inputs["problems"], "traces": stream(tmp_path, chosen), "pool.student": pool, "pool.oracle": other}
    computed = run(tmp_path, view, {name: given[name] for name in ("problems", "traces")}, "computed")
    ctx = context(tmp_path, "gathered")
    assert perplexity.plan(view, given, ctx) == 1
    gathered = run_sharded(perplexity, view, given, ctx, "perplexity")
    assert gathered.metrics["n_gathered"] == 3
    assert computed.metrics["n_gathered"] == 0
    for name in ("pool", "problem_id", "candidate", "token_ids", "rank_T", "n_prompt", "n_chars"):
        assert gathered.table("traces")[name].to_pylist() == computed.table("traces")[name].to_pylist(), name
    np.testing.assert_allclose(gathered.metrics["ppl"], computed.metrics["ppl"], rtol=1e-5)

    monkeypatch.setattr(perplexity, "shard", None)
    whole = {**given, "traces": stream(tmp_path / "whole", chosen[:3])}
    assert run(tmp_path, view, whole, "whole").metrics["n_gathered"] == 3


def test_the_kept_native_traces(tmp_path, view, inputs):
    rollouts = [{"problem_id": name, "sample": c, "text": text(p, c)} for p, name in enumerate(IDS) for c in range(N)]
    solvable = [{"problem_id": name, "kept": p % N} for p, name in enumerate(IDS) if p != 2]
    given = {
        "problems": inputs["problems"],
        "rollouts": artifact(
            tmp_path,
            "rollouts",
            rollouts=rows(
                ROLLOUTS, rollouts, token_ids=[], logprob_T=[], finish="stop", extracted="", verdict="equal", correct=True, eligible=True
            ),
        ),
        "solvable": artifact(tmp_path, "solvable", solvable=rows(SOLVABLE, solvable, n_samples=N, n_correct=1, n_eligible=1)),
    }
    table = run(tmp_path, view, given).table("totals").to_pylist()
    assert [(entry["problem_id"], entry["candidate"]) for entry in table] == [(name, p % N) for p, name in enumerate(IDS) if p != 2]
    assert [entry["n_chars"] for entry in table] == [len(text(p, p % N)) for p in range(len(IDS)) if p != 2]


def test_no_traces_make_an_empty_table(tmp_path, view, inputs):
    inputs["traces"] = artifact(tmp_path, "candidates", "none", candidates=CANDIDATES.empty_table())
    made = run(tmp_path, view, inputs)
    assert made.metrics["ppl"] is None
    assert made.table("traces").num_rows == 0


def test_a_student_that_gives_no_finite_number_is_refused_by_the_trace(tmp_path, view, inputs):
    break_weights(make_tiny(tmp_path / "nan"))
    broken = replace(view, model=Model(path=str(tmp_path / "nan"), template="tokenizer"))
    with pytest.raises(InputError, match=r"the NLL of 4 of 4 traces is no finite number \(problem p0 candidate 1.*model.dtype"):
        run(tmp_path, broken, inputs)
