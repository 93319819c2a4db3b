"""The solvable stage: which problems, and which trace is kept."""

from collections import Counter

import pytest

from qup.config.views import SolvableView
from qup.draws import choose
from qup.errors import InputError
from qup.records import PROBLEMS
from qup.stages import solvable
from tests.helpers.artifacts import artifact, context, judged, publish, rows

VERDICTS = {
    # problem: one letter a sample; r right, c right but cut off, w wrong
    "p0": "wrcr",
    "p1": "wwww",
    "p2": "rrrr",
    "p3": "ccww",
    "p4": "wwwr",
}


def inputs(root, verdicts=VERDICTS, metrics=None, order=None):
    problems = rows(PROBLEMS, [{"problem_id": name} for name in order or verdicts], question="q", answer="1", solution="")
    sampled = [
        {
            "problem_id": name,
            "sample": sample,
            "correct": letter in "rc",
            "eligible": letter == "r",
            "finish": "length" if letter == "c" else "stop",
        }
        for name, letters in verdicts.items()
        for sample, letter in enumerate(letters)
    ]
    given = judged(root, sampled, text="t", token_ids=[1], logprob_T=[0.0], extracted="1", verdict="equal")
    given["verdicts"] = publish(given["verdicts"].path, "verdicts", metrics)
    return given | {"problems": artifact(root, "problems", problems=problems)}


def run(root, given, seed=1):
    ctx = context(root, f"ctx{seed}")
    metrics = solvable.run(SolvableView(seed), given, ctx)
    return publish(ctx.out, "solvable", metrics)


def test_problems_with_an_eligible_rollout_in_the_problems_order(tmp_path):
    made = run(tmp_path, inputs(tmp_path))
    found = {row.pop("problem_id"): row for row in made.table("solvable").to_pylist()}
    assert list(found) == ["p0", "p2", "p4"]
    assert {name: (row["n_samples"], row["n_correct"], row["n_eligible"]) for name, row in found.items()} == {
        "p0": (4, 3, 2),
        "p2": (4, 4, 4),
        "p4": (4, 1, 1),
    }
    assert found["p4"]["kept"] == 3
    assert found["p0"]["kept"] in (1, 3)


def test_the_order_is_the_problems_not_the_rollouts(tmp_path):
    made = run(tmp_path, inputs(tmp_path, order=["p4", "p3", "p2", "p1", "p0"]))
    assert made.table("solvable")["problem_id"].to_pylist() == ["p4", "p2", "p0"]


def test_the_histogram_counts_every_problem(tmp_path):
    metrics = run(tmp_path, inputs(tmp_path)).metrics
    assert metrics["correct_of_n"] == [1, 1, 1, 1, 1]
    assert metrics["eligible_of_n"] == [2, 1, 1, 0, 1]
    assert (metrics["n_problems"], metrics["n_solvable"], metrics["n_eligible"]) == (5, 3, 7)
    assert metrics["pool_size"] == pytest.approx(7 / 3)


def test_the_kept_trace_is_the_shared_draw_among_eligible_ones(tmp_path):
    given = inputs(tmp_path, {f"p{index}": "wrcrr" for index in range(300)})
    kept = run(tmp_path, given, 7).table("solvable").to_pylist()
    assert [row["kept"] for row in kept] == [(1, 3, 4)[choose(7, row["problem_id"], 3)] for row in kept]
    counts = Counter(row["kept"] for row in kept)
    assert min(counts.values()) > 70
    assert [row["kept"] for row in run(tmp_path, given, 8).table("solvable").to_pylist()] != [row["kept"] for row in kept]


def test_it_is_the_trace_that_random_selection_takes_from_the_students_pool(tmp_path):
    import numpy as np

    from qup.selection import Groups, random_rows

    given = inputs(tmp_path, {f"p{index}": "wrcrr" for index in range(50)})
    kept = run(tmp_path, given, 7).table("solvable")
    eligible = [(name, sample) for name in kept["problem_id"].to_pylist() for sample in (1, 3, 4)]
    taken = random_rows(Groups.of(np.repeat(np.arange(50), 3)), kept["problem_id"].to_pylist(), 7)
    assert [eligible[row][1] for row in taken] == kept["kept"].to_pylist()


def test_no_solvable_problem_is_an_error_with_numbers_and_advice(tmp_path):
    told = {"no_answer": 7, "truncated": 6, "correct_cut_off": 2, "undecided": 1, "timeouts": 0}
    with pytest.raises(
        InputError, match=r"of 8 rollouts to 2 problems 2 are correct.*7 without an answer, 6 cut off.*max_new_tokens.*extraction.*easier"
    ) as caught:
        run(tmp_path, inputs(tmp_path, {"p0": "ccww", "p1": "wwww"}, told))
    assert "\n" not in str(caught.value)


def test_rollouts_of_other_problems_are_refused(tmp_path):
    with pytest.raises(InputError, match="'p4' has rollouts, and is not among the problems"):
        run(tmp_path, inputs(tmp_path, order=["p0", "p1", "p2", "p3"]))
