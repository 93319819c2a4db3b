"""The stage of measures with a pass of their own: what it writes, samples and gathers."""

from __future__ import annotations

import numpy as np
import pytest

from qup.config.schema import Measure, Model, Perplexity
from qup.config.views import MeasureView
from qup.errors import InputError
from qup.measures import grace
from qup.records import CANDIDATES, MEASURED, PROBLEMS, STREAM
from qup.stages import measure
from tests.helpers.artifacts import CANDIDATE, artifact, context, rows, run_sharded
from tests.helpers.tiny import break_weights, make_tiny

IDS = [f"p{index}" for index in range(14)]


def text(p, c):
    return f"so we have {p} + {c} = {p + c} . then total is {p + c} . the answer is {p + c}" + " then 1" * (p % 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(path=str(make_tiny(tmp_path_factory.mktemp("tiny"))), template="tokenizer")


@pytest.fixture
def inputs(tmp_path):
    return given(tmp_path, IDS)


def given(root, ids):
    problems = [{"problem_id": name, "question": f"find {p} ?"} for p, name in enumerate(ids)]
    candidates = [{"problem_id": name, "candidate": c, "text": text(p, c)} for p, name in enumerate(ids) for c in range(2)]
    return {
        "problems": artifact(root, "problems", problems=rows(PROBLEMS, problems, answer="1", solution="")),
        "traces": artifact(root, "candidates", "x", candidates=rows(CANDIDATES, candidates, **CANDIDATE | {"eligible": True})),
    }


def run(root, view, inputs, name="ctx"):
    return run_sharded(measure, view, inputs, context(root, name), "measure")


def test_lalp_has_a_value_a_trace_and_less_window_means_less_known(tmp_path, model, inputs):
    made = run(tmp_path, MeasureView(model, Perplexity(shard_size=5), Measure("lalp", window=1)), inputs)
    table = made.table("measured")
    assert table.schema.equals(MEASURED)
    assert table.num_rows == 2 * len(IDS)
    assert made.manifest["metrics"]["value"] == pytest.approx(np.mean(table["value"].to_pylist()))
    other = run(tmp_path, MeasureView(model, Perplexity(shard_size=50), Measure("lalp", window=2)), inputs, "other")
    np.testing.assert_array_less(1e-6, np.abs(np.asarray(other.table("measured")["value"]) - np.asarray(table["value"])).max())


def test_lalp_of_a_stream_is_gathered_from_its_pool(tmp_path, model, inputs):
    view = MeasureView(model, Perplexity(shard_size=5), Measure("lalp"))
    pool = run(tmp_path, view, inputs)
    entries = [
        {"pool": "x", "problem_id": name, "candidate": 1, "text": text(p, 1), "question": f"find {p} ?"} for p, name in enumerate(IDS)
    ]
    stream = artifact(
        tmp_path,
        "stream",
        stream=rows(STREAM, entries, teacher="t", weight=1.0, turns=[], correct=True, status="ok", random_candidate="", n_eligible=2),
    )
    made = run(tmp_path, view, {"traces": stream, "pool.x": pool}, "gathered")
    assert made.table("measured")["value"].to_pylist() == pool.table("measured")["value"].to_pylist()[1::2]
    assert made.table("measured")["pool"].to_pylist() == ["x"] * len(IDS)


def test_grace_samples_problems_and_its_number_is_the_scores(tmp_path, model, inputs):
    settings = Measure("grace", dimensions=24, problems=11, splits=3, seed=5)
    made = run(tmp_path, MeasureView(model, Perplexity(shard_size=4), settings), inputs)
    table = made.table("measured").to_pylist()
    assert len(table) == 22
    sampled = sorted({entry["problem_id"] for entry in table})
    assert len(sampled) == 11
    gradients = np.array([entry["gradient"] for entry in table])
    first = {name: place for place, name in enumerate(dict.fromkeys(entry["problem_id"] for entry in table))}
    owner = np.array([first[entry["problem_id"]] for entry in table])
    assert made.manifest["metrics"]["value"] == pytest.approx(grace.score(gradients, owner, 3, 5), rel=1e-6)


def test_grace_of_fewer_than_ten_problems_is_refused(tmp_path, model):
    with pytest.raises(InputError, match=r"measure grace: 4 problems with a gradient; at least 10 are needed"):
        run(tmp_path, MeasureView(model, Perplexity(), Measure("grace", dimensions=8)), given(tmp_path, IDS[:4]))


@pytest.mark.parametrize("settings", [Measure("lalp"), Measure("grace", dimensions=8)], ids=lambda measure: measure.kind)
def test_a_student_that_gives_no_finite_number_is_refused_by_the_trace(tmp_path, settings):
    student = make_tiny(tmp_path / "nan")
    break_weights(student)
    broken = Model(path=str(student), template="tokenizer")
    words = rf"measure {settings.kind} of 28 of 28 traces is no finite number \(problem p0 candidate 0.*model.dtype"
    with pytest.raises(InputError, match=words):
        run(tmp_path, MeasureView(broken, Perplexity(), settings), given(tmp_path, IDS))
