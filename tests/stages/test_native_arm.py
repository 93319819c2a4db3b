"""The native arm through every stage from what was sampled to its scores."""

from __future__ import annotations

import numpy as np
import pytest

from qup.config.schema import Alignment, Model, Oracle, Perplexity, Refinement, Sampling, Selection, Source
from qup.config.views import AlignedView, CandidatesView, PerplexityView, SolvableView, StreamView
from qup.generation import Student, clamp, sample
from qup.models import load_model
from qup.records import PROBLEMS
from qup.stages import aligned, candidates, perplexity, solvable, stream
from tests.helpers.artifacts import artifact, context, judged, publish, rows, run_sharded
from tests.helpers.tiny import make_tiny

SEED, N = 11, 4


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    """Artifacts of every stage; a third of the rollouts is called verified."""
    root = tmp_path_factory.mktemp("arm")
    model = Model(path=str(make_tiny(root / "model")), template="tokenizer")
    student = Student.open(model, None)
    names = [f"p{index}" for index in range(12)]
    questions = [f"find {index} + 3 ?" for index in range(12)]
    requests = [student.request(name, question, N) for name, question in zip(names, questions, strict=True)]
    sampling = Sampling(n=N, max_new_tokens=40, seed=0, rows=16)
    drawn = dict(sample(load_model(model), clamp(requests, student.context, 40, 1), sampling, student.stop_ids))
    entries = [
        {
            "problem_id": name,
            "sample": number,
            "text": student.text(made),
            "token_ids": list(made.token_ids),
            "logprob_T": list(made.logprob_T),
            "finish": made.finish,
            "eligible": bool(student.text(made).strip()) and p != 7 and (p + number) % 3 == 0,
        }
        for p, name in enumerate(names)
        for number, made in enumerate(drawn[p])
    ]
    inputs = {
        "problems": artifact(
            root,
            "problems",
            problems=rows(PROBLEMS, [{"problem_id": n, "question": q} for n, q in zip(names, questions)], answer="", solution=""),
        ),
        **judged(root, entries, extracted="", correct=True, verdict="equal"),
    }

    def run(module, view, name, given):
        ctx = context(root, name)
        return publish(ctx.out, name, module.run(view, given, ctx))

    inputs["solvable"] = run(solvable, SolvableView(SEED), "solvable", inputs)
    view = CandidatesView(Source("student", cleaning="none"), Refinement("none"), Oracle(), SEED, "dft", 5.0, model)
    pool = run_sharded(candidates, view, inputs, context(root, "pool"), "candidates")
    inputs["aligned"] = run(aligned, AlignedView(Alignment(), ("native",)), "aligned", inputs | {"arm.native": pool})
    view = StreamView(Selection("random", SEED), Alignment(), ("student",))
    inputs["stream"] = run(stream, view, "stream", inputs | {"pool.student": pool})
    scores = {"problems": inputs["problems"], "traces": inputs["stream"]}
    inputs["nll"] = run_sharded(perplexity, PerplexityView(model, Perplexity()), scores, context(root, "nll"), "perplexity")
    return inputs


def test_the_random_stream_is_what_solvable_kept(arm):
    kept, chosen = arm["solvable"].table("solvable"), arm["stream"].table("stream")
    assert 8 <= kept.num_rows < 12
    assert chosen["problem_id"].equals(kept["problem_id"])
    assert chosen["candidate"].to_pylist() == kept["kept"].to_pylist()
    assert chosen["n_eligible"].to_pylist() == kept["n_eligible"].to_pylist()


def test_uncleaned_rollouts_cost_what_they_were_sampled_with(arm):
    """At temperature 1 without top-k and top-p, wherever the text encodes to the ids that were sampled."""
    rollouts = {(row["problem_id"], row["sample"]): row for row in arm["rollouts"].table("rollouts").to_pylist()}
    compared = 0
    for row in arm["nll"].table("traces").to_pylist():
        drawn = rollouts[row["problem_id"], row["candidate"]]
        if drawn["finish"] == "stop" and row["token_ids"] == drawn["token_ids"]:
            np.testing.assert_allclose(row["nll_T"], -np.array(drawn["logprob_T"]), rtol=1e-4, atol=1e-5)
            compared += 1
    assert compared >= 3


def test_row_order_is_the_problem_sets(arm):
    ids = arm["problems"].table("problems")["problem_id"].to_pylist()
    for name, table in (("solvable", "solvable"), ("stream", "stream"), ("nll", "traces"), ("aligned", "aligned")):
        found = arm[name].table(table)["problem_id"].to_pylist()
        assert found == sorted(found, key=ids.index)
