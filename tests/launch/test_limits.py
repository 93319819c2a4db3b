"""What is asked of partitions, as sbatch reads it."""

from __future__ import annotations

import pytest

from qup.config.schema import Cluster, Resources
from qup.errors import ConfigError
from qup.launch.preflight.limits import check_limits, satisfiable
from qup.launch.slurm.commands import Partition

NODES = [frozenset({"a100", "ib"}), frozenset({"v100"}), frozenset({"rack1"})]


def partition(name: str, gpus: int, *features: str, default: bool = False) -> Partition:
    return Partition(name, default, 4, 64, 500_000, f"gpu:a100:{gpus}" if gpus else "(null)", 1e6, frozenset(features or {"(null)"}))


EVERY = [partition("gpu", 8, "a100", "ib"), partition("preempt", 2, "a100"), partition("cpu", 0, default=True)]


@pytest.mark.parametrize(
    "constraint, there",
    [
        ("a100", True), ("h100", False), ("a100&ib", True), ("v100&ib", False), ("(a100&ib)", True), ("(v100&ib)", False),
        ("h100|v100", True), ("h100|b200", False), ("(a100&ib)|h100", True), ("v100&(ib|rack1)", False), ("a100*2", True),
        ("h100*2", False), ("a100*2&rack1*1", True), ("[rack1|rack2]", True), ("[rack3|rack2]", False), ("a100&!ib", True),
    ],
)  # fmt: skip
def test_a_constraint_is_read_as_sbatch_does(constraint: str, there: bool) -> None:
    assert satisfiable(constraint, NODES) is there


@pytest.mark.parametrize(
    "asked, fault",
    [
        (Resources(partition="gpu,preempt", gpus="8"), None),
        (Resources(partition="preempt,gpu", gpus="8"), None),
        (Resources(partition="gpu,preempt", gpus="9"), "cluster.train.gpus"),
        (Resources(partition="gpu,nowhere"), "cluster.train.partition"),
        (Resources(partition="gpu,preempt", constraint="(a100&ib)"), None),
        (Resources(partition="preempt", constraint="(a100&ib)"), "cluster.train.constraint"),
        (Resources(), None),
    ],
)
def test_of_several_partitions_one_has_to_do(asked: Resources, fault: str | None) -> None:
    if fault is None:
        check_limits(Cluster(), {"train": asked}, EVERY)
        return
    with pytest.raises(ConfigError) as told:
        check_limits(Cluster(), {"train": asked}, EVERY)
    assert {one.key for one in told.value.faults} == {fault}
