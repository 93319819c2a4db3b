"""Figures of a set of traces against their definitions, token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qup.records import TOKENS, TRACES
from qup.scoring.summary import Summary, totals
from tests.helpers.artifacts import rows


@pytest.fixture(scope="module")
def traces():
    rng = np.random.default_rng(0)
    entries = []
    for index in range(60):
        n = int(rng.integers(1, 30)) if index else 0
        entries.append(
            {
                "problem_id": f"p{index}",
                "token_ids": rng.integers(0, 12, n + 1).tolist(),
                "nll_T": rng.gamma(1, 1, n + 1).astype(np.float32).tolist(),
                "rank_T": rng.integers(1, 101, n + 1).tolist(),
                "n_prompt": int(rng.integers(1, 20)),
                "n_chars": 3 * n,
            }
        )
    return entries


def summarised(traces, pieces=(60,)):
    summary = Summary(truncate_at=25, context=40)
    start = 0
    for size in pieces:
        summary.add(rows(TRACES, traces[start : start + size], pool="", candidate=0))
        start += size
    return summary


def test_figures_are_as_defined(traces):
    metrics = summarised(traces).metrics(str)
    own = [entry for entry in traces if len(entry["nll_T"]) > 1]
    nll = [entry["nll_T"][:-1] for entry in own]
    total, count = sum(map(sum, nll)), sum(map(len, nll))
    close = pytest.approx
    assert metrics["n"] == 59
    assert metrics["n_empty"] == 1
    assert metrics["n_tokens"] == count
    assert metrics["mean_tokens"] == close(count / 59)
    assert metrics["ppl"] == close(math.exp(total / count))
    assert metrics["ppl_mean"] == close(np.mean([math.exp(np.mean(values)) for values in nll]))
    assert metrics["nll_per_char"] == close(total / (3 * count))
    for quarter in range(4):
        held = [value for values in nll for t, value in enumerate(values) if 4 * t // len(values) == quarter]
        assert metrics[f"ppl_q{quarter + 1}"] == close(math.exp(np.mean(held)))
    kept = [value for entry in own for t, value in enumerate(entry["nll_T"][:-1]) if entry["n_prompt"] + t < 25]
    assert metrics["ppl_truncated"] == close(math.exp(np.mean(kept)))
    assert metrics["n_truncated"] == sum(entry["n_prompt"] + len(entry["nll_T"]) > 25 for entry in traces)
    assert metrics["n_over_context"] == sum(entry["n_prompt"] + len(entry["nll_T"]) > 40 for entry in traces) > 0
    ranks = [entry["rank_T"][:-1] for entry in own]
    assert metrics["rank_surprisal"] == close(np.mean([np.mean(values) for values in ranks]) / np.mean([np.mean(values) for values in nll]))
    assert metrics["rank_surprisal_mean"] == close(np.mean([sum(r) / sum(v) for r, v in zip(ranks, nll, strict=True)]))
    every = [value for entry in traces for value in entry["nll_T"]]
    assert metrics["nll_with_stop"] == close(np.mean(every))


def test_pieces_add_up_to_the_whole(traces):
    whole, parts = summarised(traces), summarised(traces, (7, 1, 40, 12))
    assert whole.tokens(str).equals(parts.tokens(str)) or np.allclose(whole.tokens(str)["nll"], parts.tokens(str)["nll"])
    first, second = whole.metrics(str), parts.metrics(str)
    assert {name: value for name, value in first.items() if name != "top_tokens"} == pytest.approx(
        {name: value for name, value in second.items() if name != "top_tokens"}
    )


def test_tokens_by_quarter(traces):
    table = summarised(traces).tokens(lambda token: f"<{token}>")
    assert table.schema.equals(TOKENS)
    expected: dict[tuple[int, int], list[float]] = {}
    for entry in traces:
        values = entry["nll_T"][:-1]
        for t, value in enumerate(values):
            expected.setdefault((4 * t // len(values) + 1, entry["token_ids"][t]), []).append(value)
    found = {(entry["quarter"], entry["token_id"]): entry for entry in table.to_pylist()}
    assert set(found) == set(expected)
    for key, values in expected.items():
        assert found[key]["count"] == len(values)
        assert found[key]["nll"] == pytest.approx(sum(values))
        assert found[key]["token"] == f"<{key[1]}>"


def test_top_tokens_carry_the_loss(traces):
    summary = summarised(traces)
    top = summary.metrics(str)["top_tokens"]["q1"]
    table = [entry for entry in summary.tokens(str).to_pylist() if entry["quarter"] == 1]
    best = max(table, key=lambda entry: entry["nll"])
    assert top[0]["token_id"] == best["token_id"]
    assert top[0]["loss_share"] == pytest.approx(best["nll"] / sum(entry["nll"] for entry in table))
    assert [entry["loss_share"] for entry in top] == sorted((entry["loss_share"] for entry in top), reverse=True)


def test_totals_leave_the_stop_token_out(traces):
    table = totals(rows(TRACES, traces, pool="", candidate=0)).to_pylist()
    for entry, total in zip(traces, table, strict=True):
        assert total["n_tokens"] == len(entry["nll_T"]) - 1
        assert total["nll"] == pytest.approx(sum(entry["nll_T"][:-1]))
        assert total["rank"] == sum(entry["rank_T"][:-1])


def test_no_traces_have_no_figures():
    metrics = Summary(10).metrics(str)
    assert metrics["n"] == 0
    assert metrics["ppl"] is None
    assert Summary(10).tokens(str).num_rows == 0
