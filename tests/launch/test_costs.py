"""What a plan is expected to take."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qup.config import views
from qup.config.fingerprint import fields
from qup.config.schema import Benchmark, LabProblems, Model, Problems, Resources, Reward, Sampling, Source
from qup.launch.costs import (
    ASSUMED_BENCHMARK,
    ASSUMED_PROBLEMS,
    ASSUMED_STARTUP_S,
    ASSUMED_TEACHERS,
    CORE_S,
    LAB_MODEL_BYTES,
    Cost,
    count_rows,
    gpus_at_work,
    traces_each,
)
from qup.launch.plan import make_plan
from qup.pipeline.nodes import Node, Ref
from tests.helpers.cells import cell


def test_rows_of_local_data_are_counted_whatever_the_format(tmp_path: Path) -> None:
    path = str(tmp_path / "p.parquet")
    pq.write_table(pa.table({"question": ["a"] * 30}), path)
    assert count_rows(Problems(path=path)) == 30
    assert count_rows(Problems(path=path, limit=7)) == 7
    assert count_rows(Benchmark(path=path, limit=40)) == 30


def test_what_cannot_be_counted_from_here_is_assumed() -> None:
    assert count_rows(Problems(path="org/name")) == ASSUMED_PROBLEMS
    assert count_rows(Problems(path="org/name", limit=9)) == 9
    assert count_rows(Benchmark(path="org/name")) == ASSUMED_BENCHMARK
    assert count_rows(Problems(lab=LabProblems(n=12))) == 12


def test_the_disk_is_what_lies_there_at_the_most() -> None:
    cells = [cell(stream, objective) for stream in ("slm_rft", "oracle_refined") for objective in ("sft", "dft")]

    def disk(keep: str, slots: int | None) -> int:
        kept = [replace(one, store=replace(one.store, dir="/nowhere", keep_weights=keep)) for one in cells]
        plan = make_plan(kept, Path("/nowhere/study"))
        plan.slots = slots
        return int(plan.totals()["disk_bytes"])

    model, others = LAB_MODEL_BYTES, disk("all", 1) - 4 * LAB_MODEL_BYTES
    assert others > 0
    assert disk("none", 1) == others + model
    assert disk("none", 3) == others + 3 * model
    assert disk("best", 1) == others + 2 * model
    assert disk("none", 9) == disk("none", None) == disk("best", None) == others + 4 * model


@pytest.mark.parametrize(("backend", "working"), [("transformers", 1), ("vllm", 8)])
def test_in_process_one_gpu_works_at_a_time(backend: str, working: int) -> None:
    """Four GPUs that hold one reward model in process take as long as one, and are paid for all the same."""
    seen = (
        ("reward", views.RewardView("rm", Reward(path="org/rm", format="skywork_v2", backend=backend))),
        ("rollouts", views.RolloutsView(Model(path="org/m"), Sampling(backend=backend))),
    )
    for kind, view in seen:
        assert gpus_at_work(Node(Ref(kind, "k"), view, {}, {}, ""), Resources(gpus="8")) == working
        assert gpus_at_work(Node(Ref(kind, "k"), view, {}, {}, ""), Resources(gpus="0")) == 1


def test_a_later_study_is_estimated_by_what_the_store_has_seen(tmp_path: Path) -> None:
    """Another learning rate: the same kinds of stages on the same model; a stage that was too short to tell its rate has the assumed one."""
    seen = cell("slm_rft", store=replace(cell().store, dir=str(tmp_path)))
    later = replace(seen, trainer=replace(seen.trainer, lr=2 * seen.trainer.lr))
    plan = make_plan([seen], tmp_path / "study")
    assert not any(planned.cost.measured for planned in plan.to_run.values())
    assert all(planned.cost.seconds > ASSUMED_STARTUP_S for planned in plan.to_run.values()), "each starts a process"
    facts = {"train": (100.0, 20.0), "evaluate": (2.0, None)}
    for ref, planned in plan.to_run.items():
        if ref.kind in facts:
            seconds, startup = facts[ref.kind]
            folder = tmp_path / ref.kind / f"{'f' * 20}"
            folder.mkdir(parents=True)
            told = {
                "fields": fields(planned.node.view),
                "units": planned.cost.units,
                "metrics": {},
                "seconds": seconds,
                "startup_s": startup,
            }
            (folder / "manifest.json").write_text(json.dumps(told))
    costs = {ref.kind: planned.cost for ref, planned in make_plan([later], tmp_path / "study").to_run.items()}
    assert costs["train"].measured and costs["train"].seconds == pytest.approx(100.0)
    assert costs["evaluate"].measured and costs["evaluate"].seconds == pytest.approx(2.0 + costs["evaluate"].units * 2e-4)
    assert not costs["responses"].measured


def _costs(tmp_path: Path, *changes: dict[str, object]) -> list[dict[str, Cost]]:
    """What each kind of a cell's stages is expected to take, for cells that differ from the lab's."""
    plans = [make_plan([cell("slm_rft", **change)], tmp_path / "study") for change in changes]
    return [{ref.kind: planned.cost for ref, planned in plan.to_run.items()} for plan in plans]


def test_a_small_student_without_a_gpu_takes_its_time(tmp_path: Path) -> None:
    """What a GPU does in a second takes a core many, whatever the student's size; reading answers takes no model at all."""
    cluster = cell().cluster
    with_gpu = replace(cluster, **{name: replace(getattr(cluster, name), gpus="1") for name in ("rollouts", "train", "perplexity")})
    student = Model(path="org/student-150M")
    core, gpu = _costs(tmp_path, {"model": student}, {"model": student, "cluster": with_gpu})
    for kind in ("rollouts", "train", "perplexity"):
        ours, theirs = core[kind].seconds - ASSUMED_STARTUP_S, gpu[kind].seconds - ASSUMED_STARTUP_S
        assert 3 < ours / theirs < CORE_S, kind
    assert core["verdicts"].seconds == gpu["verdicts"].seconds


def test_training_that_stops_early_is_priced_until_there(tmp_path: Path) -> None:
    trainer = replace(cell().trainer, batch_size=4, epochs=3)
    whole, cut, beyond = _costs(tmp_path, *({"trainer": replace(trainer, max_steps=steps)} for steps in (None, 2, 10_000)))
    assert cut["train"].units == 8 < whole["train"].units
    assert beyond["train"].units == whole["train"].units


def test_traces_in_files_are_counted_for_each_problem(tmp_path: Path) -> None:
    """Three teachers' files over ten problems of which four are asked for: three traces a problem, scored and chosen from."""
    problems = Problems(path=str(tmp_path / "problems.jsonl"), gold="plain", limit=4)
    Path(problems.path).write_text(10 * '{"question": "q", "answer": "1"}\n')
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text(10 * '{"problem_id": "0", "text": "1"}\n')
    several, one = Source(name="file", path=str(tmp_path / "[abc].jsonl")), Source(name="file", path=str(tmp_path / "a.jsonl"))
    assert traces_each(several, problems) == 3
    assert traces_each(one, problems) == 1
    assert traces_each(Source(name="file", path="org/set"), problems) == ASSUMED_TEACHERS
    changed = [{"problems": problems, "source": source} for source in (several, one)]
    three, single = _costs(tmp_path, *changed)
    assert three["candidates"].units == pytest.approx(3 * single["candidates"].units)


def test_scores_that_a_stream_takes_from_its_pool_cost_nothing_again(tmp_path: Path) -> None:
    """A selection by perplexity scores the whole pool; the stream's own scores are looked up there."""
    chosen = replace(cell().selection, name="perplexity")
    plan = make_plan([cell("slm_rft", selection=chosen)], tmp_path / "study")
    pool, stream = sorted((planned.cost for ref, planned in plan.to_run.items() if ref.kind == "perplexity"), key=lambda cost: -cost.units)
    assert pool.units > 0
    assert (stream.units, stream.seconds) == (0, ASSUMED_STARTUP_S)
    assert stream.bytes > 0, "they are written all the same"
    (alone,) = _costs(tmp_path, {})
    assert alone["perplexity"].units > 0
