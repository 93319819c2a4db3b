"""Every file under conf/ composes, is explained, and refers to no other."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import pytest

from qup.config.checks import ranks
from qup.config.compose import Composer
from qup.config.door import CONF
from qup.config.reference import first_comment
from qup.config.schema import STREAMS
from qup.config.settle import BASE
from qup.config.sweeps import expand
from tests.helpers.cells import grid_faults

FILES = sorted(CONF.rglob("*.yaml"))
GROUPS = {
    "cluster": 3,
    "evaluation": 5,
    "experiment": 10,
    "experiment/paper": 9,
    "judge": 3,
    "lora": 1,
    "measure": 10,
    "model": 7,
    "oracle": 5,
    "problems": 5,
    "protocol": 1,
    "refinement": 3,
    "reward": 5,
    "selection": 8,
    "source": 6,
    "stream": 7,
    "teacher": 9,
    "tracking": 2,
    "trainer": 2,
    "zero": 5,
    "hydra/launcher": 2,
    "hydra/sweeper": 1,
}
"""Files in each folder; and config.yaml."""
EXPERIMENTS = [path.relative_to(CONF / "experiment").with_suffix("").as_posix() for path in FILES if CONF / "experiment" in path.parents]
CELLS = {
    "lab": 22,
    "lab_small": 22,
    "exposure": 126,
    "joint_selection": 198,
    "teachers": 150,
    "selection_measures": 46,
    "cooperative": 54,
    "mawps_teachers": 6,
    "paper/teachers": 13,
    "source_x_refinement": 38,
    "mawps_smollm2": 5,
    "paper/table1": 9,
    "paper/style_aligned": 5,
    "paper/lr_batch": 13,
    "paper/precision": 9,
    "paper/students": 36,
    "paper/reward_models": 6,
    "paper/perplexity": 6,
    "paper/retention": 6,
}


def _override(path: Path) -> str:
    group, choice = path.parent.relative_to(CONF).as_posix(), path.stem
    if group.startswith("experiment/"):
        group, choice = "experiment", f"{group.partition('/')[2]}/{choice}"
    plus = "+" if group == "protocol" else ""
    return f"{plus}{group}=[{choice}]" if group in ("reward", "teacher") else f"{plus}{group}={choice}"


def test_the_files_are_those_that_are_counted() -> None:
    found = {path.parent.relative_to(CONF).as_posix() for path in FILES if path.parent != CONF}
    assert found == set(GROUPS)
    for folder, count in GROUPS.items():
        assert len(list((CONF / folder).glob("*.yaml"))) == count, folder
    assert len(FILES) == sum(GROUPS.values()) + 1


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != CONF and "hydra" not in path.parts], ids=str)
def test_every_choice_composes(composer: Composer, path: Path) -> None:
    assert composer.cell([_override(path)]).study.name


def test_every_file_composes_in_hydra_to_the_same_cell(composer: Composer) -> None:
    """The n-th choices of all groups together, so that few of Hydra's slow compositions reach every file."""
    groups: dict[str, list[str]] = {}
    for path in FILES:
        if path.parent != CONF:
            one = _override(path)
            groups.setdefault(one.partition("=")[0], []).append(one)
    reached = set()
    for row in zip_longest(*groups.values()):
        # stream's presets and the free axes contradict each other on purpose
        overrides = [one for one in row if one and not one.startswith(("source=", "refinement="))]
        free = [one for one in row if one and one.startswith(("source=", "refinement="))]
        for chosen in [overrides] + ([free] if free else []):
            reached.update(chosen)
            cell = composer.cell([one for one in chosen if not one.startswith("hydra/")])
            assert composer.by_hydra([*chosen, f"study.name={cell.study.name}"]) == composer.cell(
                [*chosen, f"study.name={cell.study.name}"]
            )
    assert len(reached) == len(FILES) - 1


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_refers_to_another_value(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "${" not in text


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert len(first_comment(path)) > 10


def test_every_preset_of_the_schema_has_a_file() -> None:
    assert {path.stem for path in (CONF / "stream").glob("*.yaml")} == {*STREAMS, BASE}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_comes_to_its_cells_and_only_lacks_what_must_be_given(composer: Composer, experiment: str) -> None:
    cells = composer.grid(expand(composer, [f"experiment={experiment}"]))
    assert len(cells) == CELLS[experiment]
    assert {cell.study.name for cell in cells} == {experiment.replace("/", "-")}
    addsub = "evaluation.benchmarks.addsub.path"
    needed = {"mawps_smollm2": {"problems.path", addsub}, "mawps_teachers": {"problems.path", "source.path", addsub}}.get(experiment, set())
    assert {fault.key for fault in grid_faults(cells)} == needed


def test_the_lab_is_two_students_by_five_arms_by_two_objectives_and_the_untuned_students(composer: Composer) -> None:
    for experiment in ("lab", "lab_small"):
        cells = composer.grid(expand(composer, [f"experiment={experiment}"]))
        trained = {(cell.model.name, cell.stream.name, cell.trainer.objective) for cell in cells if cell.stream.name != BASE}
        assert trained == {
            (m, s, t) for m in ("lab_foreign", "lab_familiar") for s in set(STREAMS) - {"cooperative"} for t in ("sft", "dft")
        }
        assert [cell.model.name for cell in cells if cell.stream.name == BASE] == ["lab_foreign", "lab_familiar"]


def test_the_papers_experiments_follow_its_recipe(composer: Composer) -> None:
    for experiment in [name for name in EXPERIMENTS if name.startswith("paper/")]:
        for cell in composer.grid(expand(composer, [f"experiment={experiment}"])):
            trainer = cell.trainer
            assert (trainer.normalisation, trainer.micro_batch, trainer.packing, trainer.drop_last) == ("dft_repo", 4, False, True)
            assert (trainer.betas, trainer.weight_decay, trainer.decay_all, trainer.clip) == ([0.9, 0.95], 0.01, True, 1.0)
            assert (trainer.warmup_ratio, trainer.schedule, trainer.max_length, trainer.epochs) == (0.1, "cosine", 2048, 1)
            assert (cell.problems.decontamination, cell.problems.limit) == ("none", 100_000)
            assert (cell.rollouts.sampling.n, cell.rollouts.sampling.temperature) == (8, 1.0)
            assert (cell.evaluation.sampling.n, cell.evaluation.sampling.max_new_tokens, len(cell.evaluation.benchmarks)) == (16, 4096, 5)
            assert ranks(cell) == 8
            assert "eft open" in (CONF / "experiment" / f"{experiment}.yaml").read_text() or experiment == "paper/table1"
    grid = composer.grid(expand(composer, ["experiment=paper/lr_batch"]))
    assert {(cell.trainer.lr, cell.trainer.batch_size) for cell in grid[:-1]} == {(lr, b) for lr in (2e-5, 5e-5) for b in (128, 256)}


def test_a_stage_that_calls_an_api_holds_no_gpu(composer: Composer) -> None:
    for cell in composer.grid(expand(composer, ["experiment=paper/style_aligned"])):
        assert cell.cluster.oracle.gpus == ("4" if cell.oracle.backend == "vllm" else "0")
