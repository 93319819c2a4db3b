"""Figures of an evaluation: Avg@k and its companions, over correct_PS (problems × samples)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def scores(table: pa.Table) -> dict[str, Any]:
    """Metrics of a RESPONSES table: accuracies in percent, by benchmark and in all; development problems apart."""
    reported, dev = table.filter(pc.invert(table["dev"])), table.filter(table["dev"])
    names = list(dict.fromkeys(table["benchmark"].to_pylist()))
    benchmarks = {name: _benchmark(reported.filter(pc.equal(reported["benchmark"], name))) for name in names}
    benchmarks = {name: found for name, found in benchmarks.items() if found["n"]}
    totals = [found["avg"] for found in benchmarks.values()]
    metrics: dict[str, Any] = {
        "benchmarks": benchmarks,
        "total": float(np.mean(totals)) if totals else None,
        "total_pooled": _percent(reported["correct"]),
        "n_samples": table.num_rows,
        "tokens": int(pc.sum(table["n_tokens"]).as_py() or 0),
    }
    if dev.num_rows:
        parts = {name: _benchmark(dev.filter(pc.equal(dev["benchmark"], name))) for name in names}
        metrics["dev"] = {name: found for name, found in parts.items() if found["n"]}
        metrics["dev_total"] = float(np.mean([found["avg"] for found in metrics["dev"].values()]))
    return metrics


def _percent(column: pa.ChunkedArray) -> float | None:
    return 100.0 * float(pc.mean(pc.cast(column, pa.float64())).as_py()) if len(column) else None


def _benchmark(table: pa.Table) -> dict[str, Any]:
    if not table.num_rows:
        return {"n": 0}
    rows = table.select(["problem_id", "correct", "extracted"]).to_pydict()
    by_problem: dict[str, list[tuple[bool, str]]] = {}
    for problem, correct, answer in zip(rows["problem_id"], rows["correct"], rows["extracted"], strict=True):
        by_problem.setdefault(problem, []).append((correct, answer))
    k = max(map(len, by_problem.values()))
    means_P = np.array([np.mean([correct for correct, _ in found]) for found in by_problem.values()])
    return {
        "n": len(by_problem),
        "k": k,
        "avg": 100.0 * float(means_P.mean()),
        "stderr": 100.0 * float(means_P.std(ddof=1) / np.sqrt(len(means_P))) if len(means_P) > 1 else None,
        "pass_at_k": 100.0 * float(np.mean([any(correct for correct, _ in found) for found in by_problem.values()])),
        "maj_at_k": 100.0 * float(np.mean([_majority(found) for found in by_problem.values()])),
        "no_answer": _percent(pc.equal(table["verdict"], "no_answer")),
        "timeouts": int(pc.sum(pc.equal(table["verdict"], "timeout")).as_py() or 0),
        "truncated": _percent(pc.equal(table["finish"], "length")),
        "mean_tokens": float(pc.mean(table["n_tokens"]).as_py()),
    }


def _majority(found: list[tuple[bool, str]]) -> bool:
    """Whether the commonest answer is right; of equally common ones the first drawn. No answer is no vote."""
    votes = Counter(answer for _, answer in found if answer)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return next(correct for correct, answer in found if answer == winner)


def results_json(metrics: dict[str, Any], model: str) -> dict[str, Any]:
    """The shape that lm-evaluation-harness writes, which other people's tools read; accuracies as shares."""
    return {
        "model_name": model,
        "results": {
            name: {
                "alias": name,
                "acc,none": found["avg"] / 100,
                "acc_stderr,none": "N/A" if found["stderr"] is None else found["stderr"] / 100,
                f"pass@{found['k']},none": found["pass_at_k"] / 100,
                f"maj@{found['k']},none": found["maj_at_k"] / 100,
            }
            for name, found in metrics["benchmarks"].items()
        },
        "n-samples": {name: {"original": found["n"], "effective": found["n"]} for name, found in metrics["benchmarks"].items()},
        "n-shot": dict.fromkeys(metrics["benchmarks"], 0),
        "config": {"model": model, "template_hash": metrics.get("template_hash"), "temperature": metrics.get("temperature")},
    }
