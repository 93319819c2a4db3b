"""Every setting, both ways: in a key where it changes the result, in none where it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qup.config.compose import Composer
from qup.config.schema import Config, Lora, Oracle, Trainer
from qup.pipeline import build_graph
from tests.helpers import key_table
from tests.helpers.cells import cell

WITH_DROPOUT = {"trainer.attention", "cluster.train.nodes", "cluster.train.tasks", "cluster.train.gpus"}
"""Runtime settings that change the result of a training that drops out, and enter its key then."""


@pytest.fixture(scope="module")
def found(composer: Composer) -> dict[str, tuple[bool, set[str]]]:
    return key_table.keys_by_setting(composer)


def test_a_runtime_setting_enters_no_key(found: dict[str, tuple[bool, set[str]]]) -> None:
    assert len(found) > 250
    assert {name for name, (runtime, kinds) in found.items() if runtime and kinds} <= WITH_DROPOUT


def test_every_other_setting_enters_one(found: dict[str, tuple[bool, set[str]]]) -> None:
    outside = {name for name, (runtime, kinds) in found.items() if not runtime and not kinds}
    assert {name for name in outside if name.partition(".")[0] not in key_table.OTHERWISE} == set(key_table.BY_NAME)


def test_the_page_has_the_table_as_it_is(found: dict[str, tuple[bool, set[str]]]) -> None:
    text = key_table.PAGE.read_text(encoding="utf-8")
    said = text.split(key_table.BEGIN)[1].split(key_table.END)[0]
    assert said == key_table.table(found), "python -m tests.helpers.key_table writes it"


def keys(one: Config) -> dict[str, str]:
    return {f"{ref.kind} {node.label}": ref.key for ref, node in build_graph([one]).nodes.items()}


def on(one: Config, tasks: int, kernel: str = "auto") -> Config:
    cluster = replace(one.cluster, train=replace(one.cluster.train, tasks=tasks))
    return replace(one, cluster=cluster, trainer=replace(one.trainer, attention=kernel))


@pytest.mark.parametrize(
    "trainer, ranks, kernel",
    [
        (Trainer(seed=0), False, False),
        (Trainer(seed=0, dropout=0.3), True, True),
        (Trainer(seed=0, lora=Lora(dropout=0.1)), True, False),
        (Trainer(seed=0, lora=Lora()), False, False),
    ],
    ids=["none", "attention", "adapters", "adapters without"],
)
def test_dropout_makes_ranks_and_kernel_part_of_a_training(trainer: Trainer, ranks: bool, kernel: bool) -> None:
    one = cell(trainer=trainer)
    assert (keys(on(one, 1)) != keys(on(one, 2))) is ranks
    assert (keys(on(one, 1, "sdpa")) != keys(on(one, 1, "eager"))) is kernel


def test_the_names_of_oracle_and_judge_are_labels() -> None:
    one = cell("oracle_refined", oracle=Oracle(name="a", backend="lab", seed=0), judge=Oracle(name="b", backend="lab", seed=0))
    renamed = replace(one, oracle=replace(one.oracle, name="c"), judge=replace(one.judge, name="d"))
    assert keys(one) == keys(renamed)


def test_several_oracles_are_told_apart_by_their_names() -> None:
    two = {"a": Oracle(name="a", backend="lab", seed=0), "b": Oracle(name="b", backend="lab", seed=0)}
    one = cell("oracle_refined", teacher=two)
    renamed = replace(one, teacher={"a": two["a"], "b": replace(two["b"], name="c")})
    assert keys(one) != keys(renamed)
