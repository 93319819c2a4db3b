"""The accepted try of compatibility-guided refinement."""

from __future__ import annotations

import pytest

from qup.config.schema import Refinement
from qup.config.views import AcceptView
from qup.errors import InputError
from qup.records import CANDIDATES, SCORES, SOLVABLE, TOTALS
from qup.stages import accept
from tests.helpers.artifacts import CANDIDATE, artifact, context, judged, publish, rows

IDS = ["a", "b", "c", "d"]


def try_(root, number, **values):
    """One round: NLL a token of the verified answers, None for a wrong one."""
    entries = [
        {
            "problem_id": name,
            "candidate": 2,
            "text": f"{name} round {number}",
            "eligible": value is not None,
            "correct": value is not None,
            "edit_distance": 0.1 * number,
            "verdict": "wrong" if value is None else "equal",
        }
        for name, value in values.items()
    ]
    known = [{"problem_id": name, "candidate": 2, "nll": 4 * value} for name, value in values.items() if value is not None]
    return {
        f"round.{number}": artifact(
            root, "candidates", f"r{number}", candidates=rows(CANDIDATES, entries, **(CANDIDATE | {"attempts": 1, "output_tokens": 10}))
        ),
        f"nll.{number}": artifact(
            root, "perplexity", f"n{number}", totals=rows(TOTALS, known, pool="", n_prompt=1, n_tokens=4, n_chars=5, rank=9)
        ),
    }


@pytest.fixture
def inputs(tmp_path):
    rollouts = [{"problem_id": name, "sample": c, "text": f"{name} native {c}"} for name in IDS for c in range(3)]
    native = [{"problem_id": name, "candidate": 2, "nll": 4.0} for name in IDS]
    return {
        "solvable": artifact(
            tmp_path,
            "solvable",
            solvable=rows(SOLVABLE, [{"problem_id": name} for name in IDS], n_samples=3, n_correct=1, n_eligible=1, kept=2),
        ),
        **judged(
            tmp_path, rollouts, token_ids=[], logprob_T=[], finish="stop", extracted="1", verdict="equal", correct=True, eligible=True
        ),
        "nll.native": artifact(
            tmp_path, "perplexity", "native", totals=rows(TOTALS, native, pool="", n_prompt=1, n_tokens=4, n_chars=5, rank=9)
        ),
        **try_(tmp_path, 1, a=1.2, b=3.0, c=None, d=None),
        **try_(tmp_path, 2, b=2.0, c=5.0, d=None),
        **try_(tmp_path, 3, b=2.5, c=None, d=None),
    }


def run(tmp_path, inputs, how, **settings):
    ctx = context(tmp_path)
    metrics = accept.run(AcceptView(Refinement("refine", tries=3, accept=how, margin=0.3, **settings), 0), inputs, ctx)
    made = publish(ctx.out, "accept", metrics)
    assert made.table("candidates").schema.equals(CANDIDATES)
    return metrics, made.table("candidates").to_pylist()


def test_the_nearest_verified_try_wins_and_the_native_trace_stands_in(tmp_path, inputs):
    metrics, table = run(tmp_path, inputs, "perplexity")
    assert [entry["text"] for entry in table] == ["a round 1", "b round 2", "c round 2", "d native 2"]
    assert [entry["status"] for entry in table] == ["ok", "ok", "ok", "native"]
    assert all(entry["eligible"] for entry in table)
    assert [entry["attempts"] for entry in table] == [1, 3, 3, 3]
    assert metrics["accepted_by_round"] == {"1": 1, "2": 2, "3": 0}
    assert metrics["asked_by_round"] == {"1": 4, "2": 3, "3": 3}
    assert metrics["native"] == 1
    assert metrics["mean_edit_distance"] == pytest.approx((0.1 + 0.2 + 0.2) / 3)
    assert metrics["within_margin"] == 1
    assert metrics["mean_gap"] == pytest.approx((0.2 + 1.0 + 4.0) / 3)


def test_joint_weighs_the_reward(tmp_path, inputs):
    for number, rewards in ((1, {"a": 0.0, "b": 9.0}), (2, {"b": 0.0, "c": 0.0}), (3, {"b": 1.0})):
        entries = [{"problem_id": name, "candidate": 2, "score": value} for name, value in rewards.items()]
        inputs[f"reward.{number}"] = artifact(
            tmp_path, "reward", f"w{number}", scores=rows(SCORES, entries, pool="", n_tokens=3, fits=True)
        )
    assert run(tmp_path, inputs, "joint", weight=0.1, reward="r")[1][1]["text"] == "b round 1"


def test_first_correct_takes_the_first(tmp_path, inputs):
    assert [entry["text"] for entry in run(tmp_path, inputs, "first_correct")[1]] == ["a round 1", "b round 1", "c round 2", "d native 2"]


def test_a_try_without_nll_is_named(tmp_path, inputs):
    inputs["nll.2"] = artifact(tmp_path, "perplexity", "none", totals=TOTALS.empty_table())
    with pytest.raises(InputError, match=r"nll.2 has no score of 2 verified tries: b/2, c/2"):
        run(tmp_path, inputs, "perplexity")
