"""What a plan is expected to take."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qup.config import views
from qup.config.fingerprint import fields
from qup.config.schema import Benchmark, LabProblems, Model, Problems, Resources, Reward, Sampling
from qup.launch.costs import ASSUMED_BENCHMARK, ASSUMED_PROBLEMS, ASSUMED_STARTUP_S, LAB_MODEL_BYTES, count_rows, gpus_at_work
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
