"""What is refused before anything runs, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from qup.config.compose import Composer
from qup.errors import ConfigError
from qup.launch.check import faults, validate_grid
from tests.helpers.cells import grid_faults

NUMINA = ["problems=numina_cot", "model=qwen2_5_math_1_5b", "evaluation=avg16", "judge=none", "reward=[]", "oracle=none"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["stream=base", "oracle=none"],
        ["stream=style_aligned", "trainer=dft"],
        ["source=student+oracle", "selection=joint", "selection.reward=lab_steps"],
        ["source=oracle", "source.samples=4", "selection=shortest"],
        ["refinement=refine", "refinement.input=all", "selection=perplexity"],
        ["refinement=refine", "refinement.tries=3", "refinement.accept=perplexity"],
        NUMINA,
        ["problems=gsm8k", "judge=none", "reward=[lab_steps]"],
        ["zero=stage0"],
        ["zero=stage3_offload", "trainer.dtype=bfloat16"],
        ["+evaluation.dev={two_steps: 20}"],
        ["cluster=slurm_8gpu", "trainer.batch_size=256"],
        ["cluster.train.time=90", "cluster.oracle.time=2-12:00:00", "cluster.reward.mem=1T", "cluster.rollouts.gpus=a100:2"],
        ["lora=r16"],
        [
            "++cluster.train.extra={comment: mine, dependency: singleton, exclusive: true, mail_type: FAIL, nice: 3}",
            "cluster.train.at_once=2",
        ],
        ["cluster.train.srun=['--cpu-bind=cores']", "cluster.train.partition='gpu,preempt'", "cluster.train.constraint='a100*2'"],
    ],
    ids=str,
)
def test_sound_cells_have_no_fault(composer: Composer, overrides: list[str]) -> None:
    assert faults(composer.cell(overrides)) == []


RANGES = [
    ("trainer.lr=0", "trainer.lr", "above 0"),
    ("trainer.lr=-1", "trainer.lr", "above 0"),
    ("trainer.lr=nan", "trainer.lr", "finite"),
    ("trainer.weight_decay=inf", "trainer.weight_decay", "finite"),
    ("rollouts.sampling.n=0", "rollouts.sampling.n", "at least 1"),
    ("rollouts.sampling.temperature=-0.1", "rollouts.sampling.temperature", "at least 0"),
    ("rollouts.sampling.top_p=0", "rollouts.sampling.top_p", "above 0 and at most 1"),
    ("evaluation.benchmarks.two_steps.lab.max_steps=9", "evaluation.benchmarks.two_steps.lab.max_steps", "at most 6"),
    ("reward.lab_steps.max_length=1", "reward.lab_steps.max_length", "at least 8"),
    ("selection.weight=-1", "selection.weight", "at least 0"),
    ("trainer.objective=sftt", "trainer.objective", "did you mean sft?"),
    ("zero.stage=4", "zero.stage", "valid: 0, 1, 2, 3"),
    ("model.template=labb", "model.template", "did you mean lab?"),
    ("seed=-1", "seed", "at least 0"),
]


@pytest.mark.parametrize(("override", "key", "says"), RANGES)
def test_each_setting_is_held_to_its_range_and_choices(composer: Composer, override: str, key: str, says: str) -> None:
    told = [fault for fault in faults(composer.cell([override])) if fault.key == key]
    assert len(told) == 1
    assert says in told[0].valid


CROSS = [
    (["stream=oracle_refined", "oracle=none"], "oracle", "refinement=refine needs an Oracle"),
    (["source=oracle", "oracle=none"], "oracle", "source=oracle needs an Oracle"),
    (["trainer.batch_size=30", "trainer.micro_batch=4"], "trainer.batch_size", "multiple of 4"),
    (["cluster=slurm_8gpu", "trainer.batch_size=30"], "trainer.batch_size", "multiple of 8: trainer.micro_batch=auto on 8 ranks"),
    (["trainer.normalisation=dft_repo", "trainer.micro_batch=4"], "trainer.packing", "must be false"),
    (["trainer.normalisation=micro_batch", "trainer.packing=false"], "trainer.micro_batch", "must be a number"),
    (["trainer.micro_batch=many"], "trainer.micro_batch", "a whole number or auto"),
    (["trainer.micro_batch=0"], "trainer.micro_batch", "at least 1"),
    (["trainer.betas=[0.9]"], "trainer.betas", "two numbers"),
    (["trainer.betas=[0.9,1.0]"], "trainer.betas", "below 1"),
    (["trainer.evaluate_at=[0.5,1.5]"], "trainer.evaluate_at", "at most 1"),
    (["trainer.row_tokens=64"], "trainer.row_tokens", "trainer.max_length=256"),
    (["model.context=128"], "trainer.max_length", "model.context=128"),
    (["zero=stage0", "trainer.dtype=bfloat16"], "zero.stage", "zero=stage1, or float32"),
    (["zero.offload=true"], "zero.offload", "zero=stage3_offload"),
    (["trainer.master=bfloat16"], "trainer.master", "trainer.dtype=bfloat16"),
    (["trainer.dtype=bfloat16", "trainer.master=bfloat16", "zero=stage3_offload"], "trainer.master", "offloaded"),
    (["source=student+oracle", "selection=reward"], "selection.reward", "valid: lab_outcome, lab_steps"),
    (["selection=joint", "selection.reward=lab_stepz"], "selection.reward", "did you mean lab_steps?"),
    (["source=dataset", "selection=shortest"], "selection", "the pool of dataset holds one candidate"),
    (["source=oracle", "selection=shortest"], "selection", "source.samples=2 or more"),
    (["stream=oracle_refined", "selection=perplexity"], "selection", "refinement.input=all"),
    (["rollouts.sampling.n=1", "selection=shortest"], "selection", "the pool of student"),
    (["verdict.reward=nemotron"], "verdict.reward", "no configured reward model"),
    (["refinement=refine", "refinement.tries=2"], "refinement.tries", "accept=perplexity or joint"),
    (["refinement=refine", "refinement.tries=2", "refinement.accept=joint"], "refinement.reward", "is needed"),
    (["source=file"], "source.path", "is needed with source=file"),
    (["source=cooperative", "oracle=openai"], "oracle.base_url", "api.openai.com does not"),
    (
        ["source=cooperative", "oracle=openai", "oracle.base_url=https://api.openai.com/v1/"],
        "oracle.base_url",
        "add_generation_prompt: false",
    ),
    (
        ["source=cooperative", "rollouts.sampling={backend: openai, base_url: http://h/v1, served_model: m}"],
        "rollouts.sampling.backend",
        "can't go on with the student's half of a trace",
    ),
    (["source=cooperative", "oracle=openai", "oracle.base_url=http://h/v1", "oracle.mode=batch"], "oracle.mode", "turn by turn"),
    (["source=cooperative", "oracle=none"], "oracle", "needs an Oracle"),
    (["source=cooperative", "source.boundary=./none"], "source.boundary", "rule, or a token classifier"),
    (["source=file", "source.files=[nope.jsonl]"], "source.files", "no such file"),
    (["source=oracle", "teacher=[lab_steps]", "source.teacher=lab_step"], "source.teacher", "did you mean lab_steps?"),
    (["source=student", "source.teacher=lab"], "source.teacher", "wrote no pool of source=student"),
    (["source=oracle", "teacher=[lab_steps]", "selection=perplexity"], "selection", "several teachers"),
    (["source=oracle", "selection.keep=2"], "selection.keep", "can't matter: the pool of oracle holds one candidate"),
    (["selection.keep=2", "selection.weights=lark"], "selection.weights", "needs a selection by a measure alone"),
    (["selection=perplexity", "selection.weights=lark"], "selection.weights", "can't matter with selection.keep=1"),
    (["source=oracle", "+oracle@teacher.none=none"], "teacher.none", "needs an Oracle"),
    (["source=file", "source.path=nope.jsonl"], "source.path", "no such file"),
    (["source.name=student+orcle"], "source", "did you mean oracle?"),
    (["source.name=student+student"], "source", "twice"),
    (["problems.path=x.jsonl"], "problems.path", "problems.lab is set as well"),
    (["problems=mawps", "judge=none", "reward=[]"], "problems.path", "is needed"),
    (["problems=mawps", "judge=none", "reward=[]", "problems.path=no/such/file.jsonl"], "problems.path", "no such file or directory"),
    (["problems.lab.min_steps=3", "problems.lab.max_steps=2"], "problems.lab.min_steps", "problems.lab.max_steps=2"),
    (
        ["problems=mawps", "judge=none", "reward=[]", "problems.path=a/b", "problems.solution_template=x"],
        "problems.solution_template",
        "{answer}",
    ),
    (
        ["problems=mawps", "judge=none", "reward=[]", "problems.path=a/b", "problems.solution_template=null", "source=dataset"],
        "problems.solution",
        "a column",
    ),
    (["problems=gsm8k", "reward=[]"], "judge", "only the lab's problems"),
    (["problems=gsm8k", "judge=none", "reward=[lab_outcome]"], "reward.lab_outcome", "only the lab's own problems"),
    (["oracle=recorded", "stream=oracle_refined"], "oracle.path", "is needed"),
    (["oracle=openai", "oracle.model=''", "source=oracle"], "oracle.model", "is needed"),
    (["oracle.mode=batch", "source=oracle"], "oracle.mode", "oracle.backend=openai"),
    (
        ["oracle=openai", "source=oracle", "oracle.usd_per_million_input=0", "oracle.usd_per_million_output=0", "study.max_oracle_usd=5"],
        "oracle.usd_per_million_output",
        "without prices",
    ),
    (["+oracle.prompts={refin: x}", "source=oracle"], "oracle.prompts.refin", "did you mean refine?"),
    (["rollouts.sampling.backend=openai", "rollouts.sampling.served_model=x"], "rollouts.sampling.base_url", "is needed"),
    (["rollouts.sampling.min_new_tokens=999"], "rollouts.sampling.min_new_tokens", "max_new_tokens=128"),
    (["+evaluation.dev={five_steps: 3}"], "evaluation.dev.five_steps", "valid: two_steps"),
    (["+evaluation.dev={two_steps: 150}"], "evaluation.dev.two_steps", "below 150"),
    (["model.lab.hidden=65"], "model.lab.hidden", "multiple of"),
    ([*NUMINA, "model.trust_remote_code=true"], "model.trust_remote_code", "model.revision=<commit>"),
    ([*NUMINA, "model.dtype=float32", "model.attention=flash_attention_2"], "model.attention", "bfloat16"),
    ([*NUMINA, "trainer.dtype=float32", "model.attention=flash_attention_2"], "model.attention", "trainer.dtype=bfloat16 to train"),
    (["trainer.attention=flash_attention_2"], "trainer.attention", "trainer.dtype=bfloat16 to train"),
    (["trainer.attention=torch_varlen"], "trainer.attention", "trainer.dtype=bfloat16 to train"),
    ([*NUMINA, "trainer.attention=torch_varlen", "trainer.dropout=0.1"], "trainer.attention", "knows no attention dropout"),
    (["trainer.liger=true", "model.device=cpu"], "trainer.liger", "needs a GPU"),
    (["reward=[skywork_v2]", "reward.skywork_v2.format=lab"], "reward.skywork_v2.format", "lab goes with"),
    (["cluster.train.time=1h"], "cluster.train.time", "2-12:00:00"),
    (["cluster.train.mem=lots"], "cluster.train.mem", "16G"),
    (["cluster.train.gpus=two"], "cluster.train.gpus", "type:number"),
    (["cluster.train.workers=2"], "cluster.train.workers", "stages that workers share"),
    (["cluster.rollouts.nodes=2"], "cluster.rollouts.nodes", "only training"),
    (["cluster.train.nodes=2"], "cluster.train.nodes", "hydra/launcher=slurm"),
    (["cluster.train.gpus=4", "cluster.train.tasks=3"], "cluster.train.tasks", "1 or 4"),
    (["++cluster.train.extra={Mail: x}"], "cluster.train.extra.Mail", "without its dashes"),
    (["++cluster.train.extra={hold: true}"], "cluster.train.extra.hold", "is set by qup"),
    (["++cluster.train.extra={array: 1-5}"], "cluster.train.extra.array", "is set by qup"),
    (["++cluster.train.extra={job_name: x}"], "cluster.train.extra.job_name", "is set by qup"),
    (["++cluster.train.extra={mem-per-cpu: 2G}"], "cluster.train.extra.mem-per-cpu", "a setting of its own: cluster.train.mem"),
    (["++cluster.train.extra={dependency: 'afterok:1?afterok:2'}"], "cluster.train.extra.dependency", "use commas"),
    (["++cluster.train.extra={gres: 'gpu:2'}"], "cluster.train.extra.gres", "cluster.train.gpus"),
    (["++cluster.train.extra={nice: [1]}"], "cluster.train.extra.nice", "text, a number, or true"),
    (["cluster.train.srun=[cpu-bind]"], "cluster.train.srun", "with its dashes"),
    (["cluster.report.at_once=2"], "cluster.report.at_once", "no array"),
    (["study.name=a/b"], "study.name", "names a folder"),
    (["store.dir=''"], "store.dir", "must be a directory"),
]


@pytest.mark.parametrize(("overrides", "key", "says"), CROSS, ids=lambda value: str(value)[:60])
def test_impossible_pairs_are_refused(composer: Composer, overrides: list[str], key: str, says: str) -> None:
    told = [fault for fault in faults(composer.cell(overrides)) if fault.key == key]
    assert len(told) == 1, faults(composer.cell(overrides))
    assert says in told[0].valid


def test_only_the_named_fault_is_found_in_an_impossible_pair(composer: Composer) -> None:
    """A check that fires where it has no business would hide among the others."""
    for overrides, key, _ in CROSS:
        assert {fault.key for fault in faults(composer.cell(overrides))} == {key}, overrides


def test_several_nodes_are_for_slurm(composer: Composer) -> None:
    cell = composer.cell(["cluster=slurm_8gpu", "cluster.train.nodes=2", "trainer.batch_size=32"])
    assert [fault.key for fault in faults(cell, launcher="local")] == ["cluster.train.nodes"]
    assert faults(cell, launcher="slurm") == []


def test_the_untuned_student_is_asked_for_no_oracle_and_no_training(composer: Composer) -> None:
    cell = composer.cell(["stream=base", "oracle=none", "trainer.batch_size=30", "trainer.micro_batch=4", "judge=openai", "judge.model=''"])
    assert faults(cell) == []


def test_what_is_there_is_local_and_a_hub_name_is_taken_on_trust(composer: Composer, tmp_path: Path) -> None:
    there = tmp_path / "file.jsonl"
    there.write_text("{}\n")
    base = ["problems=mawps", "judge=none", "reward=[]"]
    for path, key in (
        (str(there), set()),
        ("org/name", set()),
        (str(tmp_path / "gone"), {"problems.path"}),
        ("gone.jsonl", {"problems.path"}),
    ):
        assert {fault.key for fault in faults(composer.cell([*base, f"problems.path={path}"]))} == key


def test_a_package_that_is_not_installed_is_named(composer: Composer) -> None:
    (fault,) = faults(composer.cell([*NUMINA, "model.path='package:no_such_package'"]))
    assert (fault.key, fault.valid) == ("model.path", "the package is not installed: pip install no-such-package")


def test_all_faults_of_a_grid_are_told_each_once_with_its_count(composer: Composer) -> None:
    cells = composer.grid([["trainer.lr=0", "zero.offload=true"], ["trainer.lr=0"], []])
    with pytest.raises(ConfigError) as caught:
        validate_grid(cells)
    assert [str(fault) for fault in caught.value.faults] == [
        "trainer.lr=0.0: must be above 0 [2 of 3 cells]",
        "zero.offload=True: goes with zero.stage=3, not 1; zero=stage3_offload [1 of 3 cells]",
    ]


@pytest.mark.parametrize("axis", ["store.dir", "study.max_gpu_hours", "verdict.margin", "cluster.max_jobs", "study.dir"])
def test_what_a_study_has_once_cannot_be_swept(composer: Composer, axis: str) -> None:
    cells = composer.grid([[f"{axis}=1"], [f"{axis}=2"]])
    assert [fault.key for fault in grid_faults(cells)] == [axis]


def test_seeds_may_be_swept(composer: Composer) -> None:
    assert grid_faults(composer.grid([["study.seed=1"], ["study.seed=2"]])) == []


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match="no cell at all"):
        validate_grid([])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("tracking.project=a/b", "tracking.project='a/b': must be 1 to 128 characters without / "),
        (f"tracking.project={'a' * 129}", "must be 1 to 128 characters"),
        (f"tracking.tags=[ok,{'a' * 65}]", "must be 1 to 64 characters each, as W&B wants it, and is 65"),
        ("tracking.tags=['']", "tracking.tags='': must be 1 to 64 characters"),
        (f"study.name={'a' * 129}", "must be at most 128 characters with tracking=wandb"),
    ],
)
def test_what_wandb_would_refuse_is_refused_before_anything_runs(composer: Composer, override: str, says: str) -> None:
    (told,) = faults(composer.cell(["tracking=wandb", override]))
    assert says in str(told)
    assert faults(composer.cell([override])) == [], "where nothing goes to W&B"
