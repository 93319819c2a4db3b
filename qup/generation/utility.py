"""Accuracy figures of evaluated responses: Avg@k and what stands beside it. Arrays are P × S: problem, sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.answers.comparison import ballot


def figures(table: pa.Table) -> dict[str, Any]:
    """Of one benchmark's EVALUATED, rows by problem, then sample; accuracies in percent.

    avg: mean accuracy over the k samples (PAPER's Avg@k). stderr: its standard error over problems. pass_at_k: problems
    with a right sample. maj_at_k: problems whose most frequent answer is right; a draw goes to the answer seen first.
    """
    problem_N = np.asarray(table["problem_id"].combine_chunks().dictionary_encode().indices)
    correct_N = np.asarray(table["correct"]).astype(float)
    n_P = np.bincount(problem_N)
    share_P = np.bincount(problem_N, weights=correct_N) / n_P
    answers = table["extracted"].to_pylist()
    voted = [
        vote([(answers[row], bool(correct_N[row])) for row in rows])
        for rows in np.split(np.argsort(problem_N, kind="stable"), np.cumsum(n_P)[:-1])
    ]
    return {
        "n": len(n_P),
        "k": int(n_P.max()),
        "avg": 100 * float(share_P.mean()),
        "stderr": 100 * float(share_P.std(ddof=1) / np.sqrt(len(n_P))) if len(n_P) > 1 else None,
        "pass_at_k": 100 * float((share_P > 0).mean()),
        "maj_at_k": 100 * float(np.mean(voted)),
        "no_answer": _share(table, "verdict", "no_answer"),
        "undecided": _share(table, "verdict", "undecided"),
        "truncated": _share(table, "finish", "length"),
        "timeouts": int(pc.sum(pc.equal(table["verdict"], "timeout")).as_py() or 0),
        "mean_tokens": float(pc.mean(table["n_tokens"]).as_py()),
    }


def vote(answers: Sequence[tuple[str, bool]]) -> bool:
    """Whether the most frequent answer is right, of (answer, right) by sample; "" has no vote.

    Answers are the same where their normal form or their number is; verdicts merge nothing, for they know the gold answer.
    """
    ballots = [(ballot(answer), right) for answer, right in answers if answer]
    counts = Counter(name for name, _ in ballots)
    if not counts:
        return False
    winner = max(counts, key=counts.__getitem__)
    return next(right for name, right in ballots if name == winner)


def _share(table: pa.Table, column: str, value: str) -> float:
    return float(pc.mean(pc.equal(table[column], value).cast(pa.float64())).as_py())


def totals(by_benchmark: Mapping[str, Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Macro mean of the benchmarks' avg, and the mean over all problems; None where there is no benchmark."""
    if not by_benchmark:
        return None, None
    avg, n = (np.array([found[name] for found in by_benchmark.values()], float) for name in ("avg", "n"))
    return float(avg.mean()), float(avg @ n / n.sum())


def harness_results(
    by_benchmark: Mapping[str, Mapping[str, Any]], dev: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures as lm-evaluation-harness lays out its results file: accuracies in 0…1 under `metric,filter`.

    Problems kept apart for choosing hyper-parameters are tasks of their own, `<benchmark>_dev`.
    """
    tasks = {**by_benchmark, **{f"{name}_dev": found for name, found in dev.items()}}
    return {
        "results": {name: _task(name, found) for name, found in tasks.items()},
        "configs": {
            name: {"task": name, "output_type": "generate_until", "repeats": found["k"], "num_fewshot": 0} for name, found in tasks.items()
        },
        "versions": dict.fromkeys(tasks, 1),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {name: {"acc": True, "pass@k": True, "maj@k": True} for name in tasks},
        "n-samples": {name: {"original": found["n"], "effective": found["n"]} for name, found in tasks.items()},
        "config": dict(config),
    }


def _task(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "alias": name,
        "acc,none": found["avg"] / 100,
        "acc_stderr,none": found["stderr"] / 100 if found["stderr"] is not None else "N/A",
        "pass@k,none": found["pass_at_k"] / 100,
        "maj@k,none": found["maj_at_k"] / 100,
    }
