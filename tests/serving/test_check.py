"""What is told of servers before any is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qup.config.schema import Cluster, Config, Oracle, Resources, Reward, Rollouts, Sampling, Stream, Vllm
from qup.config.settle import Settler
from qup.serving.check import program_faults, serves, serving_faults

CELL = Config(stream=Stream(name="slm_rft"))


def with_backend(backend: str, **changes: object) -> Config:
    return replace(CELL, rollouts=Rollouts(sampling=Sampling(backend=backend)), **changes)


@pytest.mark.parametrize(("command", "expected"), [("", "transformers"), ("/opt/vllm", "vllm")])
def test_auto_is_vllm_where_it_is_said_what_starts_it(command: str, expected: str) -> None:
    rewards = {
        "pooled": Reward(path="org/rm", format="skywork_v2", backend="auto"),
        "unpooled": Reward(path="org/rm", format="nemotron", backend="auto"),
        "served": Reward(path="org/rm", format="skywork_v2", backend="auto", base_url="http://127.0.0.1:1"),
    }
    cell, _ = Settler("s").settle(with_backend("auto", reward=rewards, vllm=Vllm(command=command)))
    assert cell.rollouts.sampling.backend == expected
    assert cell.evaluation.sampling.backend == "transformers", "what is named is not touched"
    assert [reward.backend for reward in cell.reward.values()] == [expected, "transformers", "vllm"]


def test_a_server_without_a_program_is_a_fault_that_names_who_wants_it(tmp_path: Path) -> None:
    cell = with_backend("vllm", vllm=Vllm(command=str(tmp_path / "none")), reward={"rm": Reward(path="org/rm", backend="vllm")})
    (fault,) = program_faults(cell)
    assert fault.key == "vllm.command"
    assert "rollouts.sampling.backend, reward.rm.backend=vllm" in str(fault)
    assert program_faults(replace(cell, vllm=Vllm(command=str(tmp_path / "none")), stream=Stream(name="base"))) == []


def test_servers_that_run_already_need_no_program() -> None:
    oracle = Oracle(backend="vllm", model="m", base_url="http://127.0.0.1:1/v1")
    rewards = {"rm": Reward(path="org/rm", backend="vllm", base_url="http://127.0.0.1:1")}
    assert serves(replace(CELL, judge=oracle, reward=rewards)) == []
    assert serves(replace(CELL, judge=replace(oracle, base_url=None))) == ["judge.backend"]


def test_faults_of_settings_are_told_together() -> None:
    cell = with_backend(
        "vllm",
        vllm=Vllm(args={"dtype": "float16"}, tensor_parallel=3),
        cluster=Cluster(rollouts=Resources(gpus="a100:8")),
        oracle=Oracle(backend="openai", chat_template="x.jinja", vllm={"port": 1}),
        reward={"rm": Reward(path="org/rm", format="nemotron", backend="vllm")},
    )
    assert [fault.key for fault in serving_faults(cell)] == [
        "vllm.args.dtype",
        "oracle.vllm.port",
        "oracle.chat_template",
        "reward.rm.backend",
        "vllm.tensor_parallel",
    ]
