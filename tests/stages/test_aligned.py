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


def teachers(root, counts):
    """A file's pool in which each teacher solved the first so many of twelve problems, and nothing but solvable problems."""
    ids = [f"p{i}" for i in range(12)]
    solvable = rows(SOLVABLE, [{"problem_id": name} for name in ids], n_samples=8, n_correct=1, n_eligible=1, kept=0)
    entries = [
        {"problem_id": name, "candidate": number, "teacher": teacher, "eligible": i < count}
        for i, name in enumerate(ids)
        for number, (teacher, count) in enumerate(counts.items())
    ]
    pool = artifact(root, "candidates", "file", candidates=rows(CANDIDATES, entries, **(CANDIDATE | {"verdict": "wrong"})))
    return {"solvable": artifact(root, "solvable", "of-file", solvable=solvable), "arm.file.none": pool}


def test_an_arm_of_one_teacher_covers_what_that_teacher_solved(tmp_path):
    inputs = teachers(tmp_path, {"a": 12, "b": 11})
    ctx = context(tmp_path)
    arms = ("file.none", "file.none:a", "file.none:b")
    metrics = aligned.run(AlignedView(Alignment(), arms, ("", "a", "b")), inputs, ctx)
    assert metrics["lost"] == {"file.none": 0, "file.none:a": 0, "file.none:b": 1}
    assert metrics["n"] == 11


def test_a_teacher_with_too_few_shared_problems_is_named(tmp_path):
    inputs = teachers(tmp_path, {"a": 12, "b": 9})
    view = AlignedView(Alignment(), ("file.none:a", "file.none:b"), ("a", "b"))
    with pytest.raises(InputError, match=r"share 9 of 12 .*at least 10.*a 12, b 9; leave out b$"):
        aligned.run(view, inputs, context(tmp_path))
    few = teachers(tmp_path / "all", {"a": 4, "b": 3})
    with pytest.raises(InputError, match="take more problems, or leave some teachers out"):
        aligned.run(view, few, context(tmp_path, "other"))
