"""Grids and sweeps become lists of overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from qup.config.compose import Composer
from qup.config.door import stand_alone_loader
from qup.config.sweeps import expand
from qup.errors import ConfigError
from qup.launch.check import checked_grid, diagnose


def _grids(*grids: str) -> str:
    return f"study.grids=[{','.join(grids)}]"


def test_a_sweep_is_a_product(composer: Composer) -> None:
    lists = expand(composer, ["stream=slm_rft,base", "trainer.lr=2e-5,5e-5", "seed=range(1,3)", "trainer=dft"])
    assert len(lists) == 8
    assert lists[0] == ["stream=slm_rft", "trainer.lr=2e-05", "seed=1", "trainer=dft"]
    assert lists[-1] == ["stream=base", "trainer.lr=5e-05", "seed=2", "trainer=dft"]


@pytest.mark.parametrize(
    ("sweep", "values"),
    [
        ("seed=choice(1,2)", ["1", "2"]),
        ("seed=sort(3,1,2)", ["1", "2", "3"]),
        ("trainer=glob(*)", ["dft", "sft"]),
        ("trainer.lr=range(0.1,0.3,0.1)", ["0.1", "0.2"]),
        ("reward=[lab_steps],[lab_outcome,lab_steps]", ["[lab_steps]", "[lab_outcome,lab_steps]"]),
        ("model={name:a},{name:b}", ["{name:a}", "{name:b}"]),
        ("study.name='a,b'", ["'a,b'"]),
    ],
)
def test_hydras_sweeps_are_understood(composer: Composer, sweep: str, values: list[str]) -> None:
    key = sweep.partition("=")[0]
    assert expand(composer, [sweep]) == [[f"{key}={value}"] for value in values]


def test_grids_are_products_united(composer: Composer) -> None:
    lists = expand(composer, [_grids("{model: 'lab_foreign,lab_familiar', trainer: 'sft,dft'}", "{stream: base}")])
    assert [cell[:-1] for cell in lists] == [
        ["model=lab_foreign", "trainer=sft"],
        ["model=lab_foreign", "trainer=dft"],
        ["model=lab_familiar", "trainer=sft"],
        ["model=lab_familiar", "trainer=dft"],
        ["stream=base"],
    ]


def test_a_grids_values_may_be_numbers_and_lists(composer: Composer) -> None:
    (only,) = expand(composer, [_grids("{seed: 3, trainer.lr: 1e-3, reward: [lab_steps,lab_outcome], trainer.packing: true}")])
    assert only[:-1] == ["seed=3", "trainer.lr=0.001", "reward=[lab_steps,lab_outcome]", "trainer.packing=True"]


def test_the_command_line_beats_a_grids_key_and_multiplies_the_grid(composer: Composer) -> None:
    lists = expand(composer, ["experiment=lab", "trainer=sft", "seed=1,2"])
    cells = composer.grid(lists)
    assert len(cells) == 2 * 5 * 2 + 2 * 2
    assert {cell.trainer.objective for cell in cells} == {"sft"}
    assert {cell.trainer.seed for cell in cells} == {1, 2}


def test_equal_cells_of_two_grids_are_kept_once(composer: Composer) -> None:
    lists = expand(composer, [_grids("{trainer: 'sft,dft'}", "{trainer: dft}")])
    assert [cell[0] for cell in lists] == ["trainer=sft", "trainer=dft"]


def test_each_of_several_experiments_brings_its_grids(composer: Composer) -> None:
    lists = expand(composer, ["experiment=paper/table1,paper/lr_batch"])
    assert [sum(cell[0] == f"experiment=paper/{name}" for cell in lists) for name in ("table1", "lr_batch")] == [9, 13]


def test_no_grid_and_no_sweep_is_one_cell(composer: Composer) -> None:
    assert expand(composer, []) == [[]]
    assert len(composer.grid(expand(composer, []))) == 1


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["trainer.lr=interval(0,1)"], "can't be enumerated"),
        (["trainer=glob(x*)"], "is an empty sweep"),
        (["experiment=lba"], "did you mean lab?"),
        ([_grids("{trainer.lrr: '1,2'}")], "did you mean trainer.lr?"),
        ([_grids("{trainer: 'sft,dfft'}")], "did you mean dft?"),
        ([_grids("{trainer.lr: '1,[2'}")], "is no override"),
    ],
)
def test_faults_of_sweeps_are_told(composer: Composer, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_grid(composer, expand(composer, overrides))
    assert says in str(caught.value)


def test_what_cannot_be_composed_and_what_cannot_be_run_are_told_together(composer: Composer) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_grid(composer, expand(composer, ["trainer.lr=abc,0,1e-3", "stream=oracle_refined,base", "oracle=none"]))
    assert {(fault.key, fault.valid.rpartition("[")[2]) for fault in caught.value.faults} == {
        ("trainer.lr", "2 of 6 cells]"),
        ("oracle", "3 of 6 cells]"),
    }


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["trainer.lrr=1", "trainer.lr=0", "oracle=none", "stream=style_aligned"], {"trainer.lrr", "trainer.lr", "oracle"}),
        (["trainer.lr=abc", "trainer.batch_size=0", "lr=3"], {"trainer.lr", "trainer.batch_size", "lr"}),
        (["stream=slm_rft", "source=oracle", "rollouts.sampling.n=0"], {"source", "rollouts.sampling.n"}),
        (
            ["evaluation.benchmarks={two_steps: {limt: 3}}", "evaluation.timeout_s=0"],
            {"evaluation.benchmarks.two_steps.limt", "evaluation.timeout_s"},
        ),
    ],
    ids=lambda value: str(sorted(value)),
)
def test_faults_of_every_kind_in_one_cell_are_told_together(composer: Composer, overrides: list[str], keys: set[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_grid(composer, [overrides])
    assert {fault.key for fault in caught.value.faults} == keys


def test_settings_are_not_judged_beside_a_group_whose_choice_is_unknown(composer: Composer) -> None:
    """With problems=lab in its place the path would be a fault, and it is none."""
    with pytest.raises(ConfigError) as caught:
        checked_grid(composer, [["problems=mawpss", "problems.path=some/name", "trainer.lr=0"]])
    assert {fault.key for fault in caught.value.faults} == {"problems", "trainer.lr"}


def test_files_are_looked_into_where_settings_are_at_fault(composer: Composer, tmp_path: Path) -> None:
    bad, worse = tmp_path / "bad.jsonl", tmp_path / "worse.jsonl"
    bad.write_text('{"input": "1+1?", "target": 2}\n{oops\n')
    worse.write_text("")
    base = ["problems=mawps", "judge=none", "reward=[lab_steps]"]
    lists = [[*base, f"problems.path={bad}", "trainer.lr=0"], [*base, f"problems.path={worse}"], [*base, "problems.path=gone.jsonl"]]
    with pytest.raises(ConfigError) as caught:
        checked_grid(composer, lists)
    told = {(fault.key, fault.value): fault.valid for fault in caught.value.faults}
    assert set(told) == {
        ("trainer.lr", 0.0),
        ("problems.path", "gone.jsonl"),
        ("problems.path", str(bad)),
        ("problems.path", str(worse)),
    }
    assert "row 2: not valid JSON" in told["problems.path", str(bad)]


def test_diagnose_reads_a_further_folder_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "mine.yaml").write_text("objective: dft\n")
    beside = Composer(stand_alone_loader(also=str(tmp_path)))
    assert [fault.key for fault in diagnose(beside, ["trainer=mine", "lr=3"], one_cell=True)] == ["lr"]
    searched = ["trainer=mine", "lr=3", f"hydra.searchpath=[file://{tmp_path}]"]
    assert [fault.key for fault in diagnose(Composer(stand_alone_loader(), searched), searched, one_cell=False)] == ["lr"]


def test_diagnose_tells_what_is_wrong_with_a_command_line(composer: Composer) -> None:
    assert [fault.key for fault in diagnose(composer, ["trainer.lrr=1", "zero=9"], one_cell=True)] == ["zero", "trainer.lrr"]
    assert [fault.key for fault in diagnose(composer, ["trainer.lr=1,2"], one_cell=True)] == ["trainer.lr"]
    assert diagnose(composer, ["trainer.lr=1,2"], one_cell=False) == []
