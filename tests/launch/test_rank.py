"""`qup rank`: teachers ranked for a student without training."""

from __future__ import annotations

import json

import pytest

from qup.errors import InputError, QupError
from qup.launch.console import make_console
from qup.launch.rank import _teachers, rank, track_record
from qup.store import Store
from tests.analysis.world import World, build_study, lab_cells
from tests.helpers.tiny import make_tiny

N = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("rank")
    make_tiny(root / "student")
    lines = [{"q": f"find {p} + {p} ?", "a": str(2 * p)} for p in range(N)]
    write(root / "problems.jsonl", lines)
    write(root / "short.jsonl", [{"problem_id": str(p), "text": f"so {p} + {p} = {2 * p} ."} for p in range(N)])
    long = [
        {"problem_id": str(p), "text": f"first we have {p} . then we get {p} + {p} = {2 * p} . the answer is {2 * p} ."} for p in range(N)
    ]
    write(root / "long.jsonl", long[:20])
    write(root / "few.jsonl", long[:4])
    return root


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def overrides(folder, *more):
    return [
        "model=qwen2_5_math_1_5b", f"model.path={folder / 'student'}", "model.template=tokenizer", "model.name=tiny", "model.dtype=float32", "model.context=256",
        "problems=mawps", f"problems.path={folder / 'problems.jsonl'}", "problems.question=q", "problems.answer=a", *more,
    ]  # fmt: skip


def ranked(folder, names, capsys, *more, sample=16):
    console = make_console()
    console.width = 200
    status = rank([str(folder / name) for name in names], overrides(folder, *more), folder / "store", sample, console)
    return status, capsys.readouterr().out


def test_every_measure_ranks_the_teachers_over_the_problems_they_share(folder, capsys):
    status, told = ranked(folder, ["short.jsonl", "long.jsonl"], capsys, "measure=[mean_logprob,lark,length,lalp]")
    assert status == 0
    assert "2 teachers, 16 problems that all of them have, student tiny" in told
    for name in ("mean_logprob", "lark", "length", "lalp"):
        assert name in told
    assert "short, 100 % of resamples" in told
    assert "no measure has a track record" in told


def test_a_second_call_finds_its_scores(folder, capsys):
    before = len(list((folder / "store" / "perplexity").glob("*/manifest.json")))
    ranked(folder, ["short.jsonl", "long.jsonl"], capsys, "measure=[mean_logprob,lark,length,lalp]")
    assert len(list((folder / "store" / "perplexity").glob("*/manifest.json"))) == before == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["short.jsonl"], "one teacher, 'short'; ranking needs two teachers or more"),
        (["short.jsonl", "few.jsonl"], r"teachers with fewer than 10 problems: few \(4\)"),
    ],
)
def test_too_little_to_rank_by_is_refused_by_name(folder, capsys, names, message):
    with pytest.raises(InputError, match=message):
        ranked(folder, names, capsys)


def test_a_missing_file_is_named_before_anything_runs(folder, capsys):
    with pytest.raises(QupError, match=r"nowhere.jsonl"):
        ranked(folder, ["short.jsonl", "nowhere.jsonl"], capsys)


def test_the_sample_does_not_depend_on_the_teachers_order(folder):
    from qup.launch.rank import _cell

    cells = [
        _cell([str(folder / name) for name in names], overrides(folder), folder / "store")
        for names in (["short.jsonl", "long.jsonl"], ["long.jsonl", "short.jsonl"])
    ]
    first, second = (_teachers(cell, 10)[1] for cell in cells)
    assert list(first) == list(second)
    assert len(first) == 10


def test_the_track_record_counts_decided_pairs_of_the_stores_studies(tmp_path):
    arms = ("oracle_refined", "oracle_synthesized", "style_aligned", "numina_subset")
    cells = lab_cells(arms, objectives=("sft",), students=(("lab_foreign", 0.0),), benchmarks={"easy": 300})
    skills = {"style_aligned": 1.2, "oracle_refined": -0.1, "oracle_synthesized": -0.8, "numina_subset": -1.6}
    _, store = build_study(tmp_path, World(cells, problems=300, length=8, steps=2, skills=skills))
    record = track_record(store)["mean_logprob"]
    assert (record.right, record.picked_best, record.judged) == (record.decided, 1, 1)
    assert record.decided >= 5
    assert track_record(Store(tmp_path / "empty")) == {}
