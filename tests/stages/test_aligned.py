"""The fixed problem set: who survives, who is to blame."""

from __future__ import annotations

import pytest

from qup.config.schema import Alignment
from qup.config.views import AlignedView
from qup.errors import InputError
from qup.records import CANDIDATES, SOLVABLE
from qup.stages import aligned
from tests.helpers.artifacts import CANDIDATE, artifact, context, rows


def pool(root, name, **verdicts):
    """Candidates by problem: a verdict, or a list of them."""
    entries = []
    for problem, given in verdicts.items():
        for number, verdict in enumerate([given] if isinstance(given, str) else given):
            good = verdict in ("equal", "symbolic")
            entries.append({"problem_id": problem, "candidate": number, "verdict": verdict, "eligible": good, "correct": good})
    return artifact(root, "candidates", name, candidates=rows(CANDIDATES, entries, **CANDIDATE))


@pytest.fixture
def inputs(tmp_path):
    solvable = rows(
        SOLVABLE,
        [{"problem_id": name, "n_correct": n} for name, n in (("a", 8), ("b", 4), ("c", 2), ("d", 1))],
        n_samples=8,
        n_eligible=1,
        kept=0,
    )
    return {
        "solvable": artifact(tmp_path, "solvable", solvable=solvable),
        "arm.native": pool(tmp_path, "native", a="equal", b="equal", c="equal", d="equal"),
        "arm.refined": pool(tmp_path, "refined", a="equal", b="wrong", c="symbolic", d=["refused", "wrong"]),
        "arm.solved": pool(tmp_path, "solved", a="equal", b=["wrong", "equal"], c="cut_off"),
    }


def run(tmp_path, inputs, arms, policy="drop"):
    ctx = context(tmp_path)
    metrics = aligned.run(AlignedView(Alignment(policy), arms), inputs, ctx)
    import pyarrow.parquet as pq

    return (
        metrics,
        pq.read_table(ctx.out / "aligned.parquet")["problem_id"].to_pylist(),
        pq.read_table(ctx.out / "losses.parquet").to_pylist(),
    )


def test_a_problem_survives_where_every_arm_has_a_verified_trace(tmp_path, inputs):
    metrics, ids, losses = run(tmp_path, inputs, ("native", "refined", "solved"))
    assert ids == ["a"]
    assert metrics["lost"] == {"native": 0, "refined": 2, "solved": 2}
    assert metrics["lost_alone"] == {"native": 0, "refined": 1, "solved": 1}
    assert metrics["n_solvable"] == 4
    assert metrics["n_dropped"] == 3
    assert metrics["solve_rate_kept"] == 1.0
    assert metrics["solve_rate_dropped"] == pytest.approx((4 + 2 + 1) / 24)
    assert {(entry["arm"], entry["problem_id"], entry["reason"]) for entry in losses} == {
        ("refined", "b", "wrong"),
        ("refined", "d", "wrong"),
        ("solved", "c", "cut_off"),
        ("solved", "d", "no_candidate"),
    }


def test_an_arm_of_two_pools_needs_only_one_of_them(tmp_path, inputs):
    metrics, ids, _ = run(tmp_path, inputs, ("native", "refined+solved"))
    assert ids == ["a", "b", "c"]
    assert metrics["lost"]["refined+solved"] == 1


@pytest.mark.parametrize("policy", ["keep_flagged", "native"])
def test_stand_ins_drop_nothing_and_are_listed(tmp_path, inputs, policy):
    metrics, ids, losses = run(tmp_path, inputs, ("native", "refined"), policy)
    assert ids == ["a", "b", "c", "d"]
    assert len(losses) == 2
    assert metrics["n_dropped"] == 0


def test_order_is_the_solvable_sets(tmp_path, inputs):
    inputs["arm.native"] = pool(tmp_path, "shuffled", d="equal", c="equal", b="equal", a="equal")
    assert run(tmp_path, inputs, ("native",))[1] == ["a", "b", "c", "d"]


def test_nothing_left_names_the_arms(tmp_path, inputs):
    inputs["arm.bad"] = pool(tmp_path, "bad", a="wrong")
    with pytest.raises(InputError, match=r"of 4 solvable.*native lacks 0, bad lacks 4.*on_failure"):
        run(tmp_path, inputs, ("native", "bad"))
