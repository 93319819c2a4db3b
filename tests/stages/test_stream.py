"""Which candidate enters the stream, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qup.config.schema import Alignment, Measure, Selection
from qup.config.views import StreamView
from qup.draws import choose
from qup.errors import InputError
from qup.measures import KINDS
from qup.measures.traces import Traces
from qup.records import ALIGNED, CANDIDATES, MEASURED, PROBLEMS, ROLLOUTS, SCORES, SOLVABLE, STATISTICS, TOTALS, TRACES
from qup.scoring.statistics import read_statistics
from qup.stages import stream
from tests.helpers.artifacts import CANDIDATE, artifact, context, rows

IDS = [f"p{index}" for index in range(30)]
N = 4
NAN = float("nan")


def eligible(p, c):
    return (p + c) % 3 != 0 or c == 1


@pytest.fixture
def inputs(tmp_path):
    rollouts = [
        {"problem_id": name, "sample": c, "text": f"native {name} {c}", "correct": eligible(p, c), "eligible": eligible(p, c)}
        for p, name in enumerate(IDS)
        for c in range(N)
    ]
    solvable, candidates, answers = [], [], []
    for p, name in enumerate(IDS):
        good = [c for c in range(N) if eligible(p, c)]
        solvable.append({"problem_id": name, "n_eligible": len(good), "kept": good[choose(7, name, len(good))]})
        for c in range(N):
            entry = {
                "problem_id": name,
                "candidate": c,
                "text": f"{name} {'x' * (9 - c)}",
                "eligible": eligible(p, c),
                "correct": eligible(p, c),
            }
            candidates.append(entry | {"verdict": "equal" if eligible(p, c) else "wrong"})
        answers.append(
            {"problem_id": name, "text": f"oracle {name}", "eligible": p != 5, "correct": p != 5, "verdict": "wrong" if p == 5 else "equal"}
        )
    problems = [{"problem_id": name, "question": f"what is {name}?"} for name in reversed(IDS)]
    return {
        "problems": artifact(tmp_path, "problems", problems=rows(PROBLEMS, problems, answer="1", solution="")),
        "solvable": artifact(tmp_path, "solvable", solvable=rows(SOLVABLE, solvable, n_samples=N, n_correct=1)),
        "rollouts": artifact(
            tmp_path,
            "rollouts",
            rollouts=rows(ROLLOUTS, rollouts, token_ids=[], logprob_T=[], finish="stop", extracted="1", verdict="equal"),
        ),
        "aligned": artifact(tmp_path, "aligned", aligned=rows(ALIGNED, [{"problem_id": name} for name in IDS])),
        "pool.student": artifact(tmp_path, "candidates", "student", candidates=rows(CANDIDATES, candidates, **CANDIDATE)),
        "pool.oracle": artifact(tmp_path, "candidates", "oracle", candidates=rows(CANDIDATES, answers, **CANDIDATE)),
    }


def scores(root, name, value, *, pool="student", fits=lambda p, c: True):
    entries = [
        {"problem_id": problem, "candidate": c, "score": value(p, c), "fits": fits(p, c)}
        for p, problem in enumerate(IDS)
        for c in range(N if pool == "student" else 1)
    ]
    return artifact(root, "reward", name, scores=rows(SCORES, entries, pool="", n_tokens=9))


def totals(root, name, nll):
    entries = [
        {"problem_id": problem, "candidate": c, "nll": nll(p, c) * (c + 1), "n_tokens": c + 1, "rank": 2 * p + c}
        for p, problem in enumerate(IDS)
        for c in range(N)
    ]
    return artifact(root, "perplexity", name, totals=rows(TOTALS, entries, pool="", n_prompt=1, n_chars=5))


READ = {"perplexity": "mean_logprob", "joint": "mean_logprob", "pareto": "mean_logprob", "rank_surprisal": "rank_surprisal"}


def run(tmp_path, inputs, rule="random", pools=("student",), policy="drop", seed=7, measure=None, teacher="", **settings):
    ctx = context(tmp_path, f"ctx{len(list(tmp_path.iterdir()))}")
    measure = measure or (Measure(READ[rule]) if rule in READ else None)
    view = StreamView(Selection(rule, seed, **settings), Alignment(policy), pools, measure=measure, teacher=teacher)
    metrics = stream.run(view, inputs, ctx)
    return metrics, pq.read_table(ctx.out / "stream.parquet").to_pylist()


def test_random_takes_the_kept_trace(tmp_path, inputs):
    metrics, table = run(tmp_path, inputs)
    kept = inputs["solvable"].table("solvable")["kept"].to_pylist()
    assert [entry["candidate"] for entry in table] == kept
    assert [entry["problem_id"] for entry in table] == IDS
    assert [entry["question"] for entry in table] == [f"what is {name}?" for name in IDS]
    assert [entry["random_candidate"] for entry in table] == [f"student/{c}" for c in kept]
    assert metrics["share_not_random"] == 0
    assert metrics["share_multi"] == 1
    assert metrics["pool_size"] == pytest.approx(sum(entry["n_eligible"] for entry in table) / len(IDS))
    assert metrics["n_correct_stream"] == len(IDS)


def test_reward_takes_the_highest_eligible(tmp_path, inputs):
    inputs["reward.student"] = scores(tmp_path, "r", lambda p, c: (c * 7 + p) % 5)
    metrics, table = run(tmp_path, inputs, "reward", reward="r")
    for p, entry in enumerate(table):
        assert (entry["candidate"] * 7 + p) % 5 == max((c * 7 + p) % 5 for c in range(N) if eligible(p, c))
    assert metrics["share_not_random"] == pytest.approx(
        sum(f"student/{entry['candidate']}" != entry["random_candidate"] for entry in table) / len(IDS)
    )


def test_perplexity_is_per_token_and_totals_may_come_from_traces(tmp_path, inputs):
    inputs["nll.student"] = totals(tmp_path, "n", lambda p, c: 1 + (c * 3 + p) % 7)
    _, table = run(tmp_path, inputs, "perplexity")
    for p, entry in enumerate(table):
        assert (entry["candidate"] * 3 + p) % 7 == min((c * 3 + p) % 7 for c in range(N) if eligible(p, c))
    traces = [
        {
            "problem_id": name,
            "candidate": c,
            "nll_T": [float(1 + (c * 3 + p) % 7)] * (c + 1) + [99.0],
            "rank_T": [1] * (c + 2),
            "token_ids": [3] * (c + 2),
        }
        for p, name in enumerate(IDS)
        for c in range(N)
    ]
    inputs["nll.student"] = artifact(tmp_path, "perplexity", "traces", traces=rows(TRACES, traces, pool="", n_prompt=2, n_chars=3))
    assert run(tmp_path, inputs, "perplexity")[1] == table


@pytest.mark.parametrize("rule", ["rank_surprisal", "joint", "pareto", "shortest"])
def test_other_rules_run_and_report_the_tie_between_scores(tmp_path, inputs, rule):
    inputs["reward.student"] = scores(tmp_path, "r", lambda p, c: float((c * 7 + p) % 5))
    inputs["nll.student"] = totals(tmp_path, "n", lambda p, c: 1.0 + (c * 7 + p) % 5)
    metrics, table = run(tmp_path, inputs, rule, reward="r", weight=0.5)
    assert len(table) == len(IDS)
    assert metrics["within_correlation"] == (pytest.approx(1.0) if rule in ("joint", "pareto") else None)
    assert metrics["weight"] == (0.5 if rule == "joint" else None)
    if rule == "shortest":
        assert [entry["candidate"] for entry in table] == [max(c for c in range(N) if eligible(p, c)) for p in range(len(IDS))]


@pytest.fixture
def passed(tmp_path, inputs):
    """A token pass over the student's pool in which every statistic differs."""
    every = [(p, name, c) for p, name in enumerate(IDS) for c in range(N)]
    summed = [
        {"problem_id": name, "candidate": c, "nll": 3.0 + (p * c) % 5, "n_tokens": 4 + c, "rank": 9 + (p + 3 * c) % 7}
        for p, name, c in every
    ]
    extra = [
        {
            "problem_id": name,
            "candidate": c,
            "brier": 1 + (c * 7 + p) % 3,
            "brier_top": 1 + (c * 5 + p) % 4,
            "question_nll": 5.0,
            "question_tokens": 3,
            "aa": 0.1 * (1 + (c * 3 + p) % 4),
            "aq": 0.05,
            "sentences": [0, 2],
        }
        for p, name, c in every
    ]
    traces = [{"problem_id": name, "candidate": c, "nll_T": [(3.0 + (p * c) % 5) / (4 + c)] * (4 + c) + [9.0]} for p, name, c in every]
    tables = {
        "totals": rows(TOTALS, summed, pool="", n_prompt=1, n_chars=5),
        "statistics": rows(STATISTICS, extra, pool="", lines=[0], blank_lines=[0]),
        "traces": rows(TRACES, traces, pool="", n_prompt=1, n_chars=5, token_ids=[1], rank_T=[1]),
    }
    inputs["nll.student"] = artifact(tmp_path, "perplexity", "passed", **tables)
    return inputs


@pytest.mark.parametrize("kind", ["mean_logprob", "rank_surprisal", "lark", "scas", "aslec_drop", "aslec_casl", "length"])
def test_a_selection_by_a_measure_takes_each_problems_best_in_its_direction(tmp_path, passed, kind):
    metrics, table = run(tmp_path, passed, "measure", measure=Measure(kind))
    good = [[c for c in range(N) if eligible(p, c)] for p in range(len(IDS))]
    place = np.array([p * N + c for p in range(len(IDS)) for c in good[p]])
    traces = read_statistics(passed["nll.student"], Measure(kind)).take(place)
    traces = Traces.of(place // N, {name: array for name, array in vars(traces).items() if name != "problem_N"})
    value = dict(
        zip(place.tolist(), KINDS[kind].module.values(traces, Measure(kind)) * (1 if KINDS[kind].better == "high" else -1), strict=True)
    )
    for p, entry in enumerate(table):
        assert value[p * N + entry["candidate"]] == max(value[p * N + c] for c in good[p])
    assert (metrics["measure"], metrics["n_unscored"]) == (kind, 0)


def test_perplexity_and_mean_logprob_are_one_choice_and_so_are_the_ratios(tmp_path, passed):
    for rule, kind in (("perplexity", "mean_logprob"), ("rank_surprisal", "rank_surprisal")):
        assert run(tmp_path, passed, rule)[1] == run(tmp_path, passed, "measure", measure=Measure(kind))[1]


@pytest.mark.parametrize("rule", ["joint", "pareto"])
def test_joint_and_pareto_weigh_any_measure_against_the_reward(tmp_path, passed, rule):
    passed["reward.student"] = scores(tmp_path, "r", lambda p, c: float(c))
    by_nll, by_scas = (run(tmp_path, passed, rule, reward="r", measure=Measure(kind))[1] for kind in ("mean_logprob", "scas"))
    assert by_nll != by_scas


def test_car_reads_rewards_lifted_to_zero(tmp_path, passed):
    passed["reward.student"] = scores(tmp_path, "r", lambda p, c: -5.0 + (p + c) % 3)
    _, table = run(tmp_path, passed, "measure", measure=Measure("car", beta=0.0))
    for p, entry in enumerate(table):
        assert (p + entry["candidate"]) % 3 == max((p + c) % 3 for c in range(N) if eligible(p, c))


def test_a_measure_with_a_pass_of_its_own_is_read_from_that(tmp_path, inputs):
    entries = [{"problem_id": name, "candidate": c, "value": -float((c * 3 + p) % 7)} for p, name in enumerate(IDS) for c in range(N)]
    inputs["measure.student"] = artifact(tmp_path, "measure", "lalp", measured=rows(MEASURED, entries, pool="", gradient=[]))
    _, table = run(tmp_path, inputs, "measure", measure=Measure("lalp"))
    for p, entry in enumerate(table):
        assert (entry["candidate"] * 3 + p) % 7 == min((c * 3 + p) % 7 for c in range(N) if eligible(p, c))


def test_a_measure_that_no_candidate_has_is_refused_with_its_reason(tmp_path, passed):
    table = passed["nll.student"].table("statistics")
    without = table.set_column(table.schema.get_field_index("aa"), "aa", pa.array([NAN] * table.num_rows))
    passed["nll.student"] = artifact(
        tmp_path, "perplexity", "bare", statistics=without, **{name: passed["nll.student"].table(name) for name in ("totals", "traces")}
    )
    with pytest.raises(InputError, match=r"selection.measure=scas: no candidate .* perplexity.activation= names"):
        run(tmp_path, passed, "measure", measure=Measure("scas"))


def test_two_pools_are_one(tmp_path, inputs):
    metrics, table = run(tmp_path, inputs, pools=("student", "oracle"))
    assert set(metrics["from_pool"]) == {"student", "oracle"}
    for p, entry in enumerate(table):
        good = [("student", c) for c in range(N) if eligible(p, c)] + ([("oracle", 0)] if p != 5 else [])
        assert (entry["pool"], entry["candidate"]) == good[choose(7, IDS[p], len(good))]
        assert entry["text"].startswith("oracle" if entry["pool"] == "oracle" else "p")


def test_equal_choices_have_equal_digests(tmp_path, inputs):
    first, _ = run(tmp_path, inputs)
    second, _ = run(tmp_path, inputs)
    other, _ = run(tmp_path, inputs, seed=8)
    assert first["traces_digest"] == second["traces_digest"] != other["traces_digest"]


@pytest.mark.parametrize(
    ("policy", "pool", "status", "text"), [("keep_flagged", "oracle", "flagged", "oracle p5"), ("native", "native", "native", "native p5")]
)
def test_stand_ins(tmp_path, inputs, policy, pool, status, text):
    metrics, table = run(tmp_path, inputs, pools=("oracle",), policy=policy)
    assert [entry["problem_id"] for entry in table] == IDS
    assert (table[5]["pool"], table[5]["status"], table[5]["random_candidate"]) == (pool, status, "")
    assert table[5]["text"].startswith(text)
    assert table[5]["correct"] == (policy == "native")
    assert metrics["n_flagged"] + metrics["n_native"] == 1
    assert metrics["n_correct_stream"] == len(IDS) - (policy == "keep_flagged")


def test_problems_without_a_trace_are_refused_by_name(tmp_path, inputs):
    with pytest.raises(InputError, match=r"oracle does not cover the 30 aligned problems: 1 have no verified trace: p5"):
        run(tmp_path, inputs, pools=("oracle",))


def test_a_pool_of_single_candidates_is_refused_by_name(tmp_path, inputs):
    inputs["reward.oracle"] = scores(tmp_path, "single", lambda p, c: 1.0, pool="oracle")
    with pytest.raises(InputError, match=r"selection=reward cannot matter: in the pool oracle every problem has one candidate"):
        run(tmp_path, inputs, "reward", pools=("oracle",), policy="native", reward="r")


def test_nan_scores_are_refused_by_problem_and_candidate(tmp_path, inputs):
    inputs["reward.student"] = scores(tmp_path, "nan", lambda p, c: NAN if (p, c) == (4, 1) else 1.0)
    with pytest.raises(InputError, match=r"reward.student.*1 candidates is no finite number: problem p4 candidate 1"):
        run(tmp_path, inputs, "reward", reward="r")
    inputs["nll.student"] = totals(tmp_path, "inf", lambda p, c: math.inf if (p, c) == (6, 1) else 1.0)
    with pytest.raises(InputError, match=r"nll.student.*problem p6 candidate 1"):
        run(tmp_path, inputs, "perplexity")


def test_scores_of_traces_that_are_not_eligible_are_not_needed(tmp_path, inputs):
    inputs["reward.student"] = scores(tmp_path, "part", lambda p, c: float(c) if eligible(p, c) else NAN)
    assert len(run(tmp_path, inputs, "reward", reward="r")[1]) == len(IDS)


def test_missing_scores_are_refused_by_problem_and_candidate(tmp_path, inputs):
    whole = scores(tmp_path, "whole", lambda p, c: 1.0).table("scores")
    inputs["reward.student"] = artifact(tmp_path, "reward", "cut", scores=whole.slice(2))
    with pytest.raises(InputError, match=r"reward.student: no score for 1 of \d+ candidates: problem p0 candidate 1"):
        run(tmp_path, inputs, "reward", reward="r")


def test_too_long_traces_are_passed_over_and_counted(tmp_path, inputs):
    inputs["reward.student"] = scores(tmp_path, "long", lambda p, c: NAN if c == 1 else float(c), fits=lambda p, c: c != 1)
    metrics, table = run(tmp_path, inputs, "reward", reward="r")
    assert metrics["n_unscored"] == len(IDS)
    assert all(entry["candidate"] != 1 for entry in table if entry["n_eligible"] > 1)


def test_scores_of_another_pool_are_refused_by_key(tmp_path, inputs):
    scored = scores(tmp_path, "other", lambda p, c: 1.0)
    inputs["reward.student"] = scored
    scored.manifest["inputs"] = {"traces": {"key": inputs["pool.student"].key, "digest": "x"}}
    run(tmp_path, inputs, "reward", reward="r")
    scored.manifest["inputs"] = {"traces": {"key": "abc", "digest": "x"}}
    with pytest.raises(
        InputError, match=r"reward.student \(reward/reward-other\) holds scores of candidates/abc, not of candidates/candidates-student"
    ):
        run(tmp_path, inputs, "reward", reward="r")


def test_keep_takes_the_best_few_of_each_problem_in_order(tmp_path, inputs):
    inputs["reward.student"] = scores(tmp_path, "r", lambda p, c: (c * 7 + p) % 5)
    metrics, table = run(tmp_path, inputs, "reward", reward="r", keep=2)
    expected = [
        (name, c)
        for p, name in enumerate(IDS)
        for c in sorted((c for c in range(N) if eligible(p, c)), key=lambda c: -((c * 7 + p) % 5))[:2]
    ]
    assert [(entry["problem_id"], entry["candidate"]) for entry in table] == expected
    assert metrics["n"] == len(IDS) and metrics["n_traces"] == len(table) == 2 * len(IDS)
    assert metrics["traces_of_n"] == [0, 0, len(IDS)]


def test_keeping_more_than_there_are_keeps_all_and_counts_them(tmp_path, inputs):
    metrics, table = run(tmp_path, inputs, keep=9)
    assert (
        len({(entry["problem_id"], entry["candidate"]) for entry in table})
        == len(table)
        == sum(eligible(p, c) for p in range(len(IDS)) for c in range(N))
    )
    assert sum(count * n for n, count in enumerate(metrics["traces_of_n"])) == len(table)
    assert metrics["share_not_random"] == 0
    first = {entry["problem_id"]: entry["candidate"] for entry in reversed(table)}
    assert [first[name] for name in IDS] == inputs["solvable"].table("solvable")["kept"].to_pylist()


def test_larks_weights_are_the_margins_over_the_best_trace_left_out(tmp_path, inputs):
    """ĝ is −cost here: with the mean log-probability, weights ∝ ℓ_k − ℓ of the first candidate left out, and a problem's come to 1."""
    inputs["nll.student"] = totals(tmp_path, "n", lambda p, c: 1 + (c * 3 + p) % 7)
    view = {"keep": 2, "weights": "lark"}
    _, table = run(tmp_path, inputs, "perplexity", measure=Measure("mean_logprob"), **view)
    for p, name in enumerate(IDS):
        mine = [entry for entry in table if entry["problem_id"] == name]
        nll = sorted(1 + (c * 3 + p) % 7 for c in range(N) if eligible(p, c))
        threshold = nll[2] if len(nll) > 2 else nll[1] + 1e-8
        margins = [threshold - value for value in nll[:2]]
        assert [entry["weight"] for entry in mine] == pytest.approx([margin / sum(margins) for margin in margins], abs=1e-6)
    _, even = run(tmp_path, inputs, "perplexity", measure=Measure("mean_logprob"), keep=2)
    assert {entry["weight"] for entry in even} == {1.0}


def test_one_teachers_traces_alone_may_enter(tmp_path, inputs):
    candidates = [{"problem_id": name, "candidate": c, "teacher": "ab"[c % 2], "text": f"{name} {c}"} for name in IDS for c in range(N)]
    inputs["pool.file"] = artifact(tmp_path, "candidates", "file", candidates=rows(CANDIDATES, candidates, **CANDIDATE))
    metrics, table = run(tmp_path, inputs, pools=("file",), teacher="b")
    assert {entry["teacher"] for entry in table} == {"b"} and {entry["candidate"] % 2 for entry in table} == {1}
    assert metrics["teachers"] == {"b": len(IDS)}
