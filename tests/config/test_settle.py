"""Arms, seeds and names that follow from what was given."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from qup.config.compose import Composer
from qup.config.schema import STREAMS, Config, Refinement, Source, Stream
from qup.config.settle import Settler, default_study_name, settle_arm
from qup.errors import ConfigError


def test_a_preset_fills_source_and_refinement(composer: Composer) -> None:
    for name, (source, refinement) in STREAMS.items():
        cell = composer.cell([f"stream={name}"])
        assert (cell.stream.name, cell.source.name, cell.refinement.name) == (name, source, refinement)


@pytest.mark.parametrize("source", ["student", "oracle", "dataset"])
@pytest.mark.parametrize("refinement", ["none", "refine", "style_aligned"])
def test_the_nine_free_combinations_are_named(composer: Composer, source: str, refinement: str) -> None:
    cell = composer.cell([f"source={source}", f"refinement={refinement}"])
    known = {pair: name for name, pair in STREAMS.items()}
    assert cell.stream.name == known.get((source, refinement), f"{source}_{refinement}")
    assert (cell.source.name, cell.refinement.name) == (source, refinement)


@pytest.mark.parametrize(
    ("given", "arm"),
    [
        ([], ("slm_rft", "student", "none")),
        (["source=oracle"], ("oracle_synthesized", "oracle", "none")),
        (["refinement=refine"], ("oracle_refined", "student", "refine")),
        (["source=student+oracle"], ("student+oracle_none", "student+oracle", "none")),
        (["stream.name=mine", "source=dataset", "refinement=refine"], ("mine", "dataset", "refine")),
        (["stream=slm_rft", "source=student"], ("slm_rft", "student", "none")),
        (["stream=base"], ("base", "none", "none")),
    ],
)
def test_what_is_left_open_is_derived(composer: Composer, given: list[str], arm: tuple[str, str, str]) -> None:
    cell = composer.cell(given)
    assert (cell.stream.name, cell.source.name, cell.refinement.name) == arm


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (["stream=slm_rft", "source=oracle"], "source"),
        (["stream=slm_rft", "refinement=refine"], "refinement"),
        (["stream=base", "refinement=refine"], "refinement"),
        (["stream=base", "source=student"], "source"),
        (["stream.name=slm_rft", "source=oracle"], "stream.name"),
    ],
)
def test_a_contradiction_is_refused(composer: Composer, given: list[str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composer.cell(given)
    assert [fault.key for fault in caught.value.faults] == [key]


def test_both_contradictions_of_a_preset_are_told() -> None:
    *_, faults = settle_arm(Stream("slm_rft", "student", "none"), Source(name="oracle"), Refinement(name="refine"))
    assert [fault.key for fault in faults] == ["source", "refinement"]


def _seeds(cell: Config) -> dict[str, int | None]:
    return {
        "rollouts": cell.rollouts.sampling.seed,
        "selection": cell.selection.seed,
        "oracle": cell.oracle.seed,
        "judge": cell.judge.seed,
        "retention": cell.retention.seed,
        "trainer": cell.trainer.seed,
        "evaluation": cell.evaluation.sampling.seed,
        "cell": cell.seed,
    }


def test_unset_seeds_are_zero(composer: Composer) -> None:
    assert set(_seeds(composer.cell([])).values()) == {0}


def test_seed_sets_trainer_and_evaluation_and_nothing_that_costs_again(composer: Composer) -> None:
    seeds = _seeds(composer.cell(["seed=3"]))
    assert {name for name, seed in seeds.items() if seed == 3} == {"trainer", "evaluation", "cell"}
    assert {seed for name, seed in seeds.items() if name not in ("trainer", "evaluation", "cell")} == {0}


def test_study_seed_sets_all_but_the_problems(composer: Composer) -> None:
    cell = composer.cell(["study.seed=7"])
    assert set(_seeds(cell).values()) == {7}
    assert cell.problems.lab is not None
    assert cell.problems.lab.seed == 1


def test_an_explicit_seed_beats_seed_and_seed_beats_study_seed(composer: Composer) -> None:
    seeds = _seeds(composer.cell(["study.seed=7", "seed=3", "trainer.seed=1", "selection.seed=2"]))
    assert seeds == {"rollouts": 7, "selection": 2, "oracle": 7, "judge": 7, "retention": 7, "trainer": 1, "evaluation": 3, "cell": 3}


def test_the_seed_column_is_the_trainers_where_no_seed_was_given(composer: Composer) -> None:
    assert composer.cell(["trainer.seed=5"]).seed == 5


def test_a_study_is_named_after_its_experiments_else_the_time(composer: Composer) -> None:
    now = datetime(2026, 11, 23, 9, 10, 4)
    assert default_study_name(["paper/table1", "lab", "paper/table1", None], now) == "paper-table1+lab"
    assert default_study_name([None, None], now) == "2026-11-23_09-10-04"
    given = composer.grid([["experiment=paper/table1"], ["experiment=lab"]], now=now)
    assert {cell.study.name for cell in given} == {"paper-table1+lab"}
    assert composer.grid([[]], now=now)[0].study.name == "2026-11-23_09-10-04"
    assert composer.cell(["experiment=lab", "study.name=mine"]).study.name == "mine"


def test_settling_twice_changes_nothing() -> None:
    once, faults = Settler("x").settle(replace(Config(), seed=4))
    assert not faults
    assert Settler("y").settle(once)[0] == once
