"""What is fetched from the hub before submission."""

from dataclasses import replace

import pytest

from qup.config.schema import Benchmark, Evaluation, Model, Oracle, Problems
from qup.errors import QupError
from qup.launch.plan import make_plan
from qup.launch.preflight.downloads import Wanted, download, wanted
from tests.helpers.cells import cell

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def plan(tmp_path, stream="slm_rft", **changes):
    made = replace(cell(stream), **changes)
    return make_plan([replace(made, store=replace(made.store, dir=str(tmp_path / "store")))], tmp_path / "study")


def hub_cell(**changes):
    return {
        "model": Model(path="org/student", content=COMMIT, revision=COMMIT),
        "problems": Problems(path="org/problems", content=COMMIT, split="train"),
        "evaluation": Evaluation(
            benchmarks={"two": Benchmark(path="org/test", content=COMMIT), "lab": cell().evaluation.benchmarks["two"]}
        ),
        "reward": {},
        **changes,
    }


def test_every_name_on_the_hub_that_a_stage_reads_is_fetched_once(tmp_path):
    fetched = []
    download(plan(tmp_path, **hub_cell()), lambda said: None, fetched.append)
    assert fetched == [
        Wanted("dataset", "org/problems", COMMIT, split="train"),
        Wanted("dataset", "org/test", COMMIT, split="test"),
        Wanted("model", "org/student", COMMIT),
    ]


def test_what_is_local_or_made_here_is_not_asked_for(tmp_path):
    assert wanted(plan(tmp_path)) == []
    here = Model(path=str(tmp_path), content="a digest", template="final_answer")
    assert all(one.name != str(tmp_path) for one in wanted(plan(tmp_path, **hub_cell(model=here))))


def test_an_oracle_that_a_job_serves_is_fetched_where_it_is_asked(tmp_path):
    oracle = Oracle(name="vllm", backend="vllm", model="org/oracle", revision=COMMIT, seed=0)
    assert Wanted("model", "org/oracle", COMMIT) in wanted(plan(tmp_path, "oracle_refined", **hub_cell(oracle=oracle)))
    assert Wanted("model", "org/oracle", COMMIT) not in wanted(plan(tmp_path, **hub_cell(oracle=oracle)))


def test_what_cannot_be_had_is_named_before_anything_is_submitted(tmp_path):
    def away(one):
        raise OSError("no route to host")

    with pytest.raises(QupError, match=r"dataset org/problems at 0123\w+ can't be downloaded \(no route to host\); nothing was submitted"):
        download(plan(tmp_path, **hub_cell()), lambda said: None, away)
