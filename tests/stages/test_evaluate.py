"""Responses to the benchmarks and their evaluation: figures against a second way of counting, dev problems kept apart, results others read."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from qup.config.schema import Benchmark, Evaluation, Model, Sampling
from qup.config.views import EvaluateView, ResponsesView
from qup.errors import InputError, Interrupted
from qup.generation.utility import figures, harness_results, totals, vote
from qup.records import EVALUATED, RESPONSES
from qup.stages import evaluate, responses
from tests.helpers.artifacts import context, publish, rows, run_sharded
from tests.helpers.tiny import make_tiny

K = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def view(folder, tmp_path):
    for name, count in (("alpha", 5), ("beta", 4)):
        lines = [json.dumps({"question": f"find {index} + {count} ?", "answer": str(index + count)}) for index in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    benchmarks = {name: Benchmark(path=str(tmp_path / f"{name}.jsonl"), extraction="last_number") for name in ("alpha", "beta")}
    sampling = Sampling(n=K, max_new_tokens=20, min_new_tokens=8, seed=5, rows=8, shard_size=4)
    return ResponsesView(
        Model(path=str(folder), template="tokenizer"), Evaluation(sampling=sampling, benchmarks=benchmarks, dev={"alpha": 2})
    )


def draw(root, view, inputs=None, name="ctx", **settings):
    return run_sharded(responses, view, inputs or {}, context(root, name, **settings), "responses")


def run(root, view, inputs=None, name="ctx", drawn=None):
    """The evaluation of what the view has drawn."""
    drawn = drawn or draw(root, view, inputs, f"{name}-drawn")
    ctx = context(root, name)
    return publish(ctx.out, "evaluate", evaluate.run(EvaluateView(view.evaluation), {"responses": drawn}, ctx))


def judged(correct_PS, answers_PS=None, benchmark="b"):
    entries = [
        {
            "benchmark": benchmark,
            "problem_id": f"p{p}",
            "sample": s,
            "correct": bool(right),
            "extracted": answers_PS[p][s] if answers_PS else ("1" if right else "0"),
        }
        for p, row in enumerate(correct_PS)
        for s, right in enumerate(row)
    ]
    return rows(EVALUATED, entries, dev=False, n_tokens=10, finish="stop", verdict="equal")


def test_every_response_is_a_row_in_the_benchmarks_order(tmp_path, view):
    drawn = draw(tmp_path, view)
    table = drawn.table("responses")
    assert table.schema.equals(RESPONSES)
    made = run(tmp_path, view, name="judged", drawn=drawn).table("verdicts")
    assert made.schema.equals(EVALUATED)
    assert all(made[name].equals(table[name]) for name in RESPONSES.names if name != "text")
    wanted = [("alpha", str(p), p < 2, s) for p in range(5) for s in range(K)] + [
        ("beta", str(p), False, s) for p in range(4) for s in range(K)
    ]
    assert list(zip(*(table[name].to_pylist() for name in ("benchmark", "problem_id", "dev", "sample")))) == wanted


def test_dev_problems_count_in_dev_alone(tmp_path, view):
    made = run(tmp_path, view)
    metrics, table = made.metrics, made.table("verdicts").to_pylist()
    json.dumps(metrics)
    assert {name: found["n"] for name, found in metrics["benchmarks"].items()} == {"alpha": 3, "beta": 4}
    assert {name: found["n"] for name, found in metrics["dev"].items()} == {"alpha": 2}

    def accuracy(keep):
        return 100 * np.mean([row["correct"] for row in table if keep(row)])

    apart = {name: accuracy(lambda row, name=name: row["benchmark"] == name and not row["dev"]) for name in ("alpha", "beta")}
    assert {name: found["avg"] for name, found in metrics["benchmarks"].items()} == pytest.approx(apart)
    assert metrics["total"] == pytest.approx(np.mean(list(apart.values())))
    assert metrics["total_pooled"] == pytest.approx(accuracy(lambda row: not row["dev"]))
    assert metrics["dev_total"] == pytest.approx(accuracy(lambda row: row["dev"]))


def test_the_figures_of_a_known_matrix():
    answers = [["1", "1", "0"], ["0", "0", "1"], ["0", "", "0"], ["1", "0", "1.0"]]
    found = figures(judged([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]], answers))
    assert found["avg"] == pytest.approx(100 * 5 / 12)
    assert found["pass_at_k"] == 75
    assert found["maj_at_k"] == 50
    assert (found["n"], found["k"], found["mean_tokens"]) == (4, 3, 10)
    assert found["stderr"] == pytest.approx(100 * np.std([2 / 3, 1 / 3, 0, 2 / 3], ddof=1) / 2)


def test_a_vote_ignores_missing_answers_and_a_draw_goes_to_the_first_seen():
    assert vote([("", False), ("", False), ("4", True)])
    assert not vote([("", False), ("", False), ("3", False), ("4", True)])
    assert vote([("4", True), ("3", False), ("", False)])
    assert vote([("3", False), ("4.0", True), ("4", True)])
    assert not vote([])


def test_problems_of_the_same_id_in_two_benchmarks_get_other_random_numbers(tmp_path, view):
    same = replace(
        view,
        evaluation=replace(
            view.evaluation, dev={}, benchmarks={name: replace(view.evaluation.benchmarks["alpha"], limit=3) for name in ("alpha", "other")}
        ),
    )
    table = draw(tmp_path, same).table("responses").to_pylist()
    texts = {name: [row["text"] for row in table if row["benchmark"] == name] for name in ("alpha", "other")}
    assert texts["alpha"] != texts["other"]


def test_shards_and_kills_change_no_byte(tmp_path, view):
    whole = draw(tmp_path, view, name="whole")
    ctx = context(tmp_path, "cut", stopping=lambda: ctx.has_shard(0))
    with pytest.raises(Interrupted):
        responses.shard(view, {}, ctx, [0, 1, 2])
    resumed = draw(tmp_path, view, name="cut")
    assert resumed.file("responses.parquet").read_bytes() == whole.file("responses.parquet").read_bytes()
    assert resumed.metrics == whole.metrics


def test_other_reading_of_the_answers_is_of_the_same_responses(tmp_path, view):
    drawn = draw(tmp_path, view)
    boxed = {name: replace(benchmark, extraction="boxed") for name, benchmark in view.evaluation.benchmarks.items()}
    other = run(tmp_path, replace(view, evaluation=replace(view.evaluation, benchmarks=boxed)), name="boxed", drawn=drawn)
    assert set(other.table("verdicts")["verdict"].to_pylist()) == {"no_answer"}
    assert other.metrics["verdicts"] == {"no_answer": 9 * K}
    assert set(run(tmp_path, view, name="last", drawn=drawn).table("verdicts")["verdict"].to_pylist()) != {"no_answer"}


def test_responses_to_other_problems_are_refused(tmp_path, view):
    fewer = {"alpha": replace(view.evaluation.benchmarks["alpha"], limit=3), "beta": view.evaluation.benchmarks["beta"]}
    with pytest.raises(InputError, match=r"alpha/3, which is not among the benchmarks' problems"):
        run(tmp_path, replace(view, evaluation=replace(view.evaluation, benchmarks=fewer)), name="other", drawn=draw(tmp_path, view))


def test_results_are_laid_out_as_the_harness_does(tmp_path, view):
    made = run(tmp_path, view)
    told = json.loads(made.file("results.json").read_text())
    assert set(told["results"]) == {"alpha", "beta", "alpha_dev"}
    assert told["results"]["beta"]["acc,none"] == pytest.approx(made.metrics["benchmarks"]["beta"]["avg"] / 100)
    assert told["n-samples"]["alpha"] == {"original": 3, "effective": 3}
    assert told["config"]["template_hash"] == made.metrics["template_hash"]
    for part in ("configs", "versions", "n-shot", "higher_is_better"):
        assert set(told[part]) == set(told["results"])


def test_a_single_problem_has_no_standard_error():
    found = figures(judged([[1, 0]]))
    assert found["stderr"] is None
    assert harness_results({"b": found}, {}, {})["results"]["b"]["acc_stderr,none"] == "N/A"
    assert totals({}) == (None, None)


def test_greedy_evaluation_gives_the_same_response_k_times(tmp_path, view):
    greedy = replace(view, evaluation=replace(view.evaluation, sampling=replace(view.evaluation.sampling, temperature=0.0)))
    texts = Counter((row["benchmark"], row["problem_id"], row["text"]) for row in draw(tmp_path, greedy).table("responses").to_pylist())
    assert set(texts.values()) == {K}


def test_trained_weights_come_before_all_and_kept_ones_by_their_share(tmp_path, view):
    made = {seed: make_tiny(tmp_path / "train-a" / name, seed=seed) for seed, name in ((3, "model"), (4, "model-0.5"))}
    inputs = {"train": publish(tmp_path / "train-a", "train")}
    for at, seed in ((1.0, 3), (0.5, 4)):
        assert responses.weights(replace(view, at=at), inputs) == made[seed]
    trained = draw(tmp_path, replace(view, at=0.5), inputs, "a").table("responses")
    by_path = draw(tmp_path, replace(view, model=replace(view.model, path=str(made[4]))), name="b").table("responses")
    assert trained.equals(by_path)


def test_a_benchmark_all_kept_apart_is_no_part_of_the_total(tmp_path, view):
    metrics = run(tmp_path, replace(view, evaluation=replace(view.evaluation, dev={"alpha": 99}))).metrics
    assert list(metrics["benchmarks"]) == ["beta"]
    assert metrics["total"] == metrics["benchmarks"]["beta"]["avg"]


def test_faults_of_the_settings_are_named(tmp_path, view):
    with pytest.raises(InputError, match=r"evaluation.dev.gamma: there is no such benchmark; there are alpha, beta"):
        responses.plan(replace(view, evaluation=replace(view.evaluation, dev={"gamma": 1})), {}, context(tmp_path))
    with pytest.raises(InputError, match="name at least one"):
        responses.plan(replace(view, evaluation=replace(view.evaluation, benchmarks={}, dev={})), {}, context(tmp_path))
    broken = replace(view.evaluation.benchmarks["alpha"], answer="gold")
    with pytest.raises(InputError, match="no such column"):
        responses.plan(replace(view, evaluation=replace(view.evaluation, benchmarks={"alpha": broken})), {}, context(tmp_path))
    with pytest.raises(InputError, match=r"alpha/0 \(leaves"):
        responses.shard(replace(view, model=replace(view.model, context=12)), {}, context(tmp_path), [0])
