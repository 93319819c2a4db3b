"""Fast composition gives what Hydra gives, and tells every fault of a grid."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest

from qup.config.compose import Composer, compose_cell
from qup.config.door import CONF, stand_alone_loader
from qup.config.sweeps import expand
from qup.errors import ConfigError

NOW = datetime(2026, 1, 2, 3, 4, 5)

GROUPS = {
    "experiment": ["lab", "lab_small", "paper/table1", "paper/retention", "joint_selection", None],
    "model": ["lab_foreign", "lab_familiar", "qwen2_5_math_7b", "smollm2_135m", None],
    "problems": ["lab", "gsm8k", "numina_cot", None],
    "stream": ["slm_rft", "style_aligned", "base", None],
    "reward": ["[lab_steps]", "[skywork_v2,lab_outcome]", None],
    "trainer": ["sft", "dft", None],
    "selection": ["joint", "shortest", None],
    "evaluation": ["avg16", None],
    "oracle": ["openai", "recorded", None],
    "lora": ["r16", None],
    "zero": ["stage0", "stage3_offload", None],
}
VALUES = [
    "trainer.lr=2e-5",
    "trainer.lr=1",
    "trainer.betas=[0.8,1]",
    "trainer.micro_batch=4",
    "trainer.micro_batch=auto",
    "trainer.evaluate_at=[]",
    "trainer.max_steps=null",
    "++trainer.epochs=3",
    "model.name=12",
    "model.stop=['</s>','a,b']",
    "rollouts.sampling={n: 3, top_p: 0.5}",
    "oracle.temperature=0",
    "+oracle.body={a: [1, {b: 2}]}",
    "++oracle.body.c=x",
    "++cluster.train.extra.mail=me",
    "cluster.train.time=2:00:00",
    "cluster.oracle.gpus=4",
    "study.grids=[{seed: 1}]",
    "study.seed=7",
    "seed=3",
    "selection.seed=5",
    "problems.name='a b'",
    "problems.limit=10",
    "source.name=oracle",
    "+evaluation.dev={two_steps: 3}",
    "study.max_oracle_usd=5",
]
"""Valid whatever the groups are."""


def _random_overrides(draw: random.Random) -> list[str]:
    groups = [f"{key}={choice}" for key, choices in GROUPS.items() if (choice := draw.choice(choices)) is not None]
    values = draw.sample(VALUES, draw.randint(0, 8))
    mixed = groups + values
    draw.shuffle(mixed)
    return mixed


@pytest.mark.parametrize("seed", range(24))
def test_a_random_cell_is_what_hydra_composes(composer: Composer, seed: int) -> None:
    overrides = _random_overrides(random.Random(seed))
    try:
        expected = composer.by_hydra(overrides, now=NOW)
    except ConfigError as error:
        with pytest.raises(ConfigError) as caught:
            composer.grid([overrides], now=NOW)
        assert set(map(str, caught.value.faults)) == set(map(str, error.faults))
        return
    assert composer.grid([overrides], now=NOW)[0] == expected


@pytest.mark.parametrize(
    "overrides",
    [
        ["evaluation.benchmarks.two_steps.limit=4", "evaluation=lab"],
        ["~evaluation.benchmarks.two_steps"],
        ["+evaluation.benchmarks={mine: {path: x}}", "evaluation.benchmarks.mine.limit=3"],
        ["reward=[skywork_v2]", "reward.skywork_v2.max_length=99"],
        ["+reward={mine: {path: x}}", "reward.mine.format=skywork_v2"],
        ["model={name: ex, lab: {exposure: 0}}", "model.lab.seed=3"],
        ["problems.lab=null"],
        ["lora=r16", "trainer.lora.rank=3"],
        ["~oracle"],
        ["trainer.lr=0.5", "study.name=n${trainer.lr}"],
        ["+protocol=paper", "trainer.lr=1e-3"],
        ["trainer.lr=1e-3", "trainer={lr: 2e-3}", "trainer.seed=4"],
        ["trainer=sft", "trainer=dft"],
        ["hydra/launcher=slurm", "hydra.job.name=x", "seed=1"],
    ],
    ids=str,
)
def test_unusual_overrides_are_what_hydra_composes(composer: Composer, overrides: list[str]) -> None:
    assert composer.grid([overrides], now=NOW)[0] == composer.by_hydra(overrides, now=NOW)


def test_cells_of_the_same_groups_swap_files_and_their_packages() -> None:
    """One defaults list serves all choices of the same groups; files of some choices live in other packages."""
    fresh = Composer.over()
    axes = {"model": fresh.options("model"), "problems": fresh.options("problems"), "experiment": ["lab", "lab_small", "exposure"]}
    rows = range(max(map(len, axes.values())))
    lists = [[f"{group}={choices[row % len(choices)]}" for group, choices in axes.items()] for row in rows]
    assert len(lists) == 7
    for overrides, cell in zip(lists, fresh.grid([[*given, "study.name=x"] for given in lists]), strict=True):
        assert cell == fresh.by_hydra([*overrides, "study.name=x"]), overrides


def test_the_order_of_overrides_matters_as_in_hydra(composer: Composer) -> None:
    first = composer.cell(["trainer.lr=0.5", "trainer=dft", "experiment=lab_small", "trainer.lr=0.25"])
    assert (first.trainer.lr, first.trainer.objective, first.trainer.batch_size) == (0.25, "dft", 4)


def test_several_oracles_of_a_cell_are_one_pool(composer: Composer) -> None:
    overrides = ["source=oracle", "oracle=[lab, openai]", "teacher.openai.model=gpt"]
    pool = composer.cell(overrides)
    assert {name: (oracle.name, oracle.backend, oracle.model) for name, oracle in pool.teacher.items()} == {
        "lab": ("lab", "lab", ""),
        "openai": ("openai", "openai", "gpt"),
    }
    assert composer.grid([overrides], now=NOW)[0] == composer.by_hydra(overrides, now=NOW)
    grid = [composer.cell([*lists, "source=oracle"]) for lists in expand(composer, ["oracle=[lab,openai],lab"])]
    assert [(list(cell.teacher), cell.oracle.name) for cell in grid] == [(["lab", "openai"], "lab"), ([], "lab")]


def test_a_grid_shares_what_its_cells_have_in_common(composer: Composer) -> None:
    cells = composer.grid([["seed=1", "trainer.lr=1e-4"], ["seed=2", "trainer.lr=1e-4"]])
    assert cells[0].problems is cells[1].problems
    assert cells[0].model is cells[1].model
    assert cells[0].trainer.seed != cells[1].trainer.seed


def test_a_grid_of_a_hundred_is_composed_at_least_five_times_faster_than_by_hydra() -> None:
    axes = [["model=lab_foreign", "model=lab_familiar"], ["stream=slm_rft", "stream=style_aligned"], ["trainer=sft", "trainer=dft"]]
    lists = [[*cell, f"trainer.lr={n}e-5"] for cell in itertools.product(*axes) for n in range(1, 14)]
    fresh = Composer.over()
    fresh.by_hydra([])
    began = time.process_time()
    for overrides in lists[:4]:
        fresh.by_hydra(overrides)
    by_hydra = (time.process_time() - began) / 4
    began = time.process_time()
    cells = Composer.over().grid(lists)
    ours = (time.process_time() - began) / len(lists)
    assert len(cells) == 104
    assert by_hydra / ours >= 5


def test_no_two_cells_of_a_grid_of_groups_alone_are_composed_slowly() -> None:
    """Every cell another tuple of choices: no composition can be shared."""
    axes = [["model=lab_foreign", "model=lab_familiar"], [f"zero=stage{n}" for n in range(4)], ["trainer=sft", "trainer=dft"]]
    axes.append([f"selection={name}" for name in ("random", "shortest", "perplexity", "joint")])
    lists = [list(cell) for cell in itertools.product(*axes)]
    fresh = Composer.over()
    fresh.cell([])
    began = time.process_time()
    fresh.by_hydra(lists[0])
    by_hydra = time.process_time() - began
    began = time.process_time()
    fresh.grid(lists)
    assert by_hydra / ((time.process_time() - began) / len(lists)) >= 5


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["trainer.lrr=1"], "trainer.lrr=1: unknown key; did you mean trainer.lr?"),
        (["lr=3"], "lr=3: unknown key; did you mean trainer.lr?"),
        (["problem=lab"], "problem='lab': unknown key; did you mean problems?"),
        (["model.lab.stepz=3"], "did you mean model.lab.steps?"),
        (["trainer={lrr: 3}"], "trainer.lrr=3: unknown key; did you mean trainer.lr?"),
        (["trainer.lr.x=1"], "trainer.lr has nothing below it"),
        (["trainer.lr=abc"], "trainer.lr='abc': must be a number"),
        (["trainer.epochs=1.5"], "trainer.epochs=1.5: must be a whole number"),
        (["trainer.micro_batch=[1]"], "trainer.micro_batch=[1]: must be a whole number or text"),
        (["trainer.betas=3"], "must be a list (a number each)"),
        (["trainer.lr=???"], "trainer.lr='???'"),
        (["trainer=sftt"], "trainer='sftt': unknown choice; did you mean sft? valid: dft, sft"),
        (["experiment=table1"], "did you mean paper/table1?"),
        (["zero=1"], "zero=1: unknown choice; valid: stage0"),
        (["stream=null"], "~stream leaves the group out"),
        (["reward=[lab_stepz]"], "did you mean lab_steps?"),
        (["reward.nix.max_length=4"], "reward has no 'nix' but lab_outcome, lab_steps; +reward={nix: {…}} adds it"),
        (["oracle.body={a: 1}"], "+oracle.body= adds to it"),
        (["trainer.lora.rank=3"], "trainer.lora is null here; lora=r16 sets it"),
        (["problems=gsm8k", "problems.lab={n: 3}"], "problems.lab is null here; problems=lab sets it"),
        (["+trainer.lr=3"], "is there already; leave the + out"),
        (["~trainer.lr"], "only entries of a mapping can be left out"),
        (["trainer.lr=1,2"], "is a sweep; add -m"),
        (["stream=slm_rft,base"], "is a sweep; add -m"),
        (["trainer.lr"], "is no override"),
        (["=3"], "is no override"),
        (["trainer.lr=[1"], "is no override"),
        (["trainer@x=sft"], "trainer@x='sft'"),
        (["stream=slm_rft", "source=oracle"], "source='oracle': contrary to stream=slm_rft, which is source=student"),
        (["cluster.trane.gpus=8"], "did you mean cluster.train.gpus?"),
        (
            ["source=oracle", "stream=teacher:lab_steps"],
            "stream='teacher:lab_steps': is the arm that source.teacher=lab_steps makes; say that",
        ),
        (["judge=[lab,none]"], "judge='[lab,none]': one choice a cell; for a grid, -m with judge=lab,none"),
        (["oracle=[lab,opnai]"], "oracle='opnai': unknown choice; did you mean openai? valid: lab, none, openai"),
    ],
)
def test_a_fault_names_key_value_and_what_is_valid(composer: Composer, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composer.cell(overrides)
    assert says in str(caught.value)
    assert len(caught.value.faults) == 1


def test_all_faults_of_all_cells_are_told_at_once_each_once(composer: Composer) -> None:
    lists = [["trainer.lrr=1", f"trainer.lr={lr}", f"zero={zero}"] for lr in ("abc", "1e-4") for zero in ("1", "stage1")]
    with pytest.raises(ConfigError) as caught:
        composer.grid(lists)
    told = {fault.key: fault.valid.rpartition("[")[2] for fault in caught.value.faults}
    assert told == {"trainer.lrr": "4 of 4 cells]", "trainer.lr": "2 of 4 cells]", "zero": "2 of 4 cells]"}


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "trainer" / "mine.yaml").write_text("objective: sft\nlrr: 3\n")
    (conf / "zero" / "mine.yaml").write_text("stage: two\n")
    (conf / "tracking" / "mine.yaml").write_text("# @package _global_\ntraking: {name: none}\n")
    with pytest.raises(ConfigError) as caught:
        Composer.over(conf).cell(["trainer=mine", "zero=mine", "tracking=mine"])
    told = {fault.key: fault.valid for fault in caught.value.faults}
    assert set(told) == {"trainer.lrr", "zero.stage", "traking"}
    assert told["trainer.lrr"] == "unknown key; did you mean trainer.lr? (in conf/trainer/mine.yaml)"
    assert told["zero.stage"] == "must be a whole number (in conf/zero/mine.yaml)"
    assert told["traking"].startswith("unknown key in conf/tracking/mine.yaml; did you mean tracking?")


def test_a_users_file_may_interpolate(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "trainer" / "mine.yaml").write_text("objective: dft\nmax_length: ${perplexity.truncate_at}\n")
    mine = Composer.over(conf)
    assert mine.cell(["trainer=mine", "perplexity.truncate_at=128"]).trainer.max_length == 128
    overrides = ["trainer=mine", "seed=4"]
    assert mine.grid([overrides], now=NOW)[0] == mine.by_hydra(overrides, now=NOW)


def test_the_module_function_composes_over_the_repositorys_conf() -> None:
    assert compose_cell(["seed=5"]).trainer.seed == 5


def test_what_an_experiment_changes_of_a_choice_goes_with_that_choice(composer: Composer) -> None:
    chosen = composer.cell(["experiment=lab_small", "reward=[lab_steps]", "evaluation=mawps", "evaluation.benchmarks.addsub.path=x.jsonl"])
    assert list(chosen.reward) == ["lab_steps"]
    assert list(chosen.evaluation.benchmarks) == ["addsub"]
    assert chosen.evaluation.sampling.n == 2, "what the experiment says of every choice stays"


def test_what_an_experiment_changes_of_a_student_of_the_lab_goes_with_it(composer: Composer) -> None:
    assert composer.cell(["experiment=lab_small", "model=smollm2_135m"]).model.lab is None
    assert composer.cell(["experiment=lab_small", "problems=gsm8k"]).problems.lab is None
    assert list(composer.cell(["experiment=lab_small", "problems=gsm8k"]).problems.decontaminate_against) == ["gsm8k_test"]
    familiar = composer.cell(["experiment=lab_small", "model=lab_familiar"])
    assert familiar.model.lab is not None
    assert familiar.model.lab.steps == 450, "another student of the lab is made small as well"


def test_what_an_experiment_adds_of_its_own_stays(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nreward: {mine: {path: x}, lab_outcome: {max_length: 99}}\nevaluation: {benchmarks: {own: {path: y}}}\n"
    )
    cell = Composer(stand_alone_loader(also=str(tmp_path))).cell(["experiment=mine", "reward=[lab_steps]", "evaluation=mawps"])
    assert sorted(cell.reward) == ["lab_steps", "mine"]
    assert sorted(cell.evaluation.benchmarks) == ["addsub", "own"]


def test_what_goes_with_a_choice_goes_also_where_settings_refer_to_each_other(composer: Composer) -> None:
    cell = composer.cell(["experiment=lab_small", "reward=[lab_steps]", "trainer.seed=${trainer.epochs}"])
    assert (list(cell.reward), cell.trainer.seed) == (["lab_steps"], cell.trainer.epochs)


def test_a_setting_of_what_went_with_a_choice_is_refused(composer: Composer) -> None:
    with pytest.raises(ConfigError, match="reward has no 'lab_outcome' but lab_steps"):
        composer.cell(["experiment=lab_small", "reward=[lab_steps]", "reward.lab_outcome.max_length=9"])
