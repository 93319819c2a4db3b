"""Which cells make one arm, and what tells arms apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qup.analysis.results.arms import arrange
from qup.config.schema import Config, Measure, Oracle, Selection, Source
from qup.study import Study
from tests.analysis.world import ONE, World, build_study, lab_cells


def labels(tmp_path, cells: list[Config]) -> list[str]:
    folder, _ = build_study(tmp_path, World(cells, skip=lambda node: True))
    return [run.arm.label for run in arrange(Study.load(folder)) if not run.cell.is_base]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            {"selection": Selection(name="shortest", seed=0)},
            {"selection": Selection(name="shortest", seed=0, keep=3)},
            ("keep=1", "keep=3"),
        ),
        (
            {"oracle": Oracle(name="a", backend="openai", model="m", usd_per_million_input=1)},
            {"oracle": Oracle(name="b", backend="vllm", model="n", temperature=0.5)},
            ("oracle=m", "oracle=n"),
        ),
        (
            {"source": Source(name="file", path="x.jsonl", content="1" * 64)},
            {"source": Source(name="file", path="y.jsonl", content="2" * 64)},
            ("path=x.jsonl", "path=y.jsonl"),
        ),
    ],
)
def test_a_setting_that_changes_a_stream_makes_another_arm(first, second, said, tmp_path) -> None:
    """And no more of them is told than it takes."""
    cells = lab_cells(**ONE, arms=("oracle_refined",))
    found = labels(tmp_path, [cells[0], replace(cells[1], **first), replace(cells[1], **second)])
    assert [label.rpartition(" ")[2] for label in found] == list(said)
    assert len({label.count("=") for label in found}) == 1


def test_seeds_and_prices_make_no_other_arm(tmp_path) -> None:
    cells = lab_cells(**ONE, arms=("oracle_refined",), seeds=(0, 1))
    priced = [replace(one, oracle=replace(one.oracle, usd_per_million_input=float(i), seed=i)) for i, one in enumerate(cells)]
    assert labels(tmp_path, priced) == ["oracle_refined", "oracle_refined"]


def test_selections_by_other_measures_or_of_more_traces_are_arms_of_their_own(tmp_path) -> None:
    chosen = [Selection(seed=0), *(Selection("measure", seed=0, measure=name, keep=keep) for name in ("lark", "scas") for keep in (1, 4))]
    made = lab_cells(**ONE, arms=("slm_rft",), selections=chosen)
    measured = [replace(cell, measure={"lark": Measure("lark"), "scas": Measure("scas")}) for cell in made]
    assert sorted(labels(tmp_path, measured)) == ["slm_rft", *(f"slm_rft · {name} keep={k}" for name in ("lark", "scas") for k in (1, 4))]
