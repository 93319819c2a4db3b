"""Which arm keeps most of the native trace, as a judge orders them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from qup.candidates.judging import read_ranking
from qup.config.schema import Oracle, Retention
from qup.config.views import RankingView
from qup.errors import InputError
from qup.oracle.asks import Request
from qup.stages import ranking
from tests.helpers.artifacts import context
from tests.stages.judges import ALIGNED_IDS, inputs, judged_by, native, shown

ARMS = ("aligned", "refined", "synthesized")
BEST_FIRST = ["refined", "synthesized", "aligned"]
JUDGE = Oracle(name="judge", backend="openai", model="m")


def view(*arms: str) -> RankingView:
    return RankingView(JUDGE, Retention(sample=100), seed=7, arms=arms or ARMS)


def ranked(root: Path, judging: RankingView) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    ctx = context(root)
    metrics = ranking.run(judging, inputs(root, *judging.arms), ctx)
    return metrics, [tuple(row.values()) for row in pq.read_table(ctx.out / "ranking.parquet").to_pylist()]


def test_labels_are_shuffled_by_problem_and_ranks_come_back_to_their_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def judge(request: Request, n: int) -> str:
        labels = {text.split()[0]: label for label, text in shown(request).items()}
        assert f"<reference>\n{native(request.ask.id)}\n</reference>" in request.body["messages"][1]["content"]
        seen.add(tuple(sorted(labels, key=labels.__getitem__)))
        return json.dumps({"ranking": [labels[arm] for arm in BEST_FIRST]})

    judged_by(monkeypatch, judge)
    metrics, rows = ranked(tmp_path, view())
    assert metrics["mean_rank"] == {"refined": 1.0, "synthesized": 2.0, "aligned": 3.0}
    assert rows == [(id, arm, BEST_FIRST.index(arm) + 1) for id in ALIGNED_IDS for arm in ARMS]
    assert len(seen) > 2
    json.dumps(metrics, allow_nan=False)


def test_a_problem_that_the_judge_cannot_order_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = judged_by(
        monkeypatch, lambda request, n: '{"ranking": ["A", "A", "B"]}' if request.ask.id == "p3" else '{"ranking": ["A", "B", "C"]}'
    )
    metrics, rows = ranked(tmp_path, view())
    assert (metrics["n"], metrics["n_failed"]) == (10, 1)
    assert len(rows) == 30 and "p3" not in {row[0] for row in rows}
    assert sum(backend.sent.values()) == 13


def test_a_judge_that_orders_nothing_leaves_an_empty_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_by(monkeypatch, lambda request, n: "")
    metrics, rows = ranked(tmp_path, view())
    assert rows == [] and metrics["mean_rank"] == dict.fromkeys(ARMS)


def test_more_arms_than_letters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 26"):
        ranking.run(view(*(f"arm{n}" for n in range(27))), {}, context(tmp_path))


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ('{"ranking": ["B", "A", "C"]}', "BAC"),
        ('```json\n{"ranking": ["b", "a", "c"]}\n```', "BAC"),
        ('{"ranking": "B > A > C"}', "BAC"),
        ('{"ranking": "B, A, C"}', "BAC"),
        ("ranking: [B, A, C]", "BAC"),
        ('{"ranking": ["B", "A"]}', None),
        ('{"ranking": ["B", "A", "C", "C"]}', None),
        ('{"ranking": ["B", "A", "D"]}', None),
        ('{"ranking": 3}', None),
        ("B A C", None),
    ],
)
def test_rankings_are_read_leniently(text: str, order: str | None) -> None:
    assert read_ranking(text, "ABC") == (None if order is None else list(order))
