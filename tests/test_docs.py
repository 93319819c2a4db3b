"""Every command of the documentation is run, or covered by what the tables here name; a new one that is in no table fails.

A code block's first word is its language, the words behind it say what it needs: `slow` (covered by another test), `bench`,
`cluster`, `gpu` and `key` (checked without running: launches are composed and validated, the rest is parsed), `interrupt` (started, then Ctrl-C).
Blocks with `file=PATH` or `apply` are what the README says to add; they are written before the page's commands run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from qup.cli import _parser
from qup.config.compose import Composer
from qup.config.sweeps import expand
from tests.helpers.cells import grid_faults

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = ("bash", "console", "sh", "shell")
NEEDS = {"slow", "bench", "cluster", "gpu", "key", "interrupt"}
pytestmark = pytest.mark.timeout(1500)

LAUNCHES = {
    "python launch.py study.dry_run=true",
    "python launch.py -m experiment=lab study.dry_run=true",
    "python launch.py -m stream=slm_rft,oracle_refined trainer=sft,dft trainer.lr=2e-5,5e-5 study.dry_run=true",
    "python launch.py source=student+oracle selection=joint selection.weight=0.5 selection.reward=lab_steps study.dry_run=true",
    "python launch.py -m stream=slm_rft,synthesized_aligned study.dry_run=true",
    "python launch.py source=file source.path=traces.jsonl source.id=problem_id source.text=text study.dry_run=true",
    "python launch.py -m model=my_student stream=base,slm_rft study.dry_run=true",
    "python launch.py oracle=my_oracle stream=oracle_refined study.max_oracle_usd=50 study.dry_run=true",
    "python launch.py stream=slm_rft 'reward=[lab_steps,my_reward]' study.dry_run=true",
    "python launch.py -m stream=slm_rft trainer=sft,dft,tempered study.dry_run=true",
    "python launch.py -m experiment=lab_small study.dry_run=true",
    "python launch.py -m experiment=lab_small",
    "python launch.py -m experiment=lab_small trainer.lr=2e-3 study.name=plan_lr study.dry_run=true",
    "python launch.py -m experiment=lab_small retention.seed=1 study.name=lab_small_judged",
    "python launch.py -m experiment=lab_small trainer.lr=2e-3 study.name=lab_small_lr",
    "python launch.py -m experiment=lab_small evaluation.timeout_s=9 study.name=lab_small_patient study.dry_run=true",
    "python launch.py -m stream=oracle_refined seed=0,1,2 study.dry_run=true",
    "python launch.py -m stream=slm_rft,oracle_refined seed=0,1,2 study.dry_run=true",
    "python launch.py problems=file problems.path=data/train.jsonl problems.id=number problems.question=problem problems.answer=gold "
    "oracle=none judge=none 'reward=[lab_steps]' study.dry_run=true",
    "python launch.py --config-dir own problems=my_problems evaluation=my_benchmark oracle=none judge=none 'reward=[lab_steps]' study.dry_run=true",
    "python launch.py -m stream=base,slm_rft tracking=wandb tracking.project=my-project 'tracking.tags=[first]' study.dry_run=true",
    "python launch.py -m experiment=paper/table1 hydra/launcher=slurm cluster=slurm_8gpu study.name=plan study.dry_run=true",
    "python launch.py -m experiment=paper/table1 hydra/launcher=slurm cluster.train.partition=gpu cluster.train.account=lab "
    "cluster.train.time=1-00:00:00 'cluster.evaluate.setup=[\"module load cuda\"]' '+cluster.train.extra={mail-type: FAIL}' study.name=plan study.dry_run=true",
    "python launch.py -m experiment=paper/table1 hydra/launcher=slurm cluster.oracle.where=here cluster.retention.where=here study.name=plan study.dry_run=true",
    "python launch.py -m experiment=paper/students hydra/launcher=slurm cluster.train.nodes=2 cluster.train.gpus=8 cluster.train.tasks=8 "
    "zero=stage3 trainer.normalisation=global trainer.micro_batch=auto study.name=plan study.dry_run=true",
    "python launch.py --help",
    "python launch.py --cfg job",
}
OTHERS = {
    "python -m qup.config.reference",
    "python -c \"import json; print(json.load(open('multirun/lab_small/plan.json'))['totals'])\"",
    "qup --help",
    "qup init my_study",
    "qup schema --to schema",
    "qup report lab_small --out elsewhere",
    "qup report --index",
    "qup status lab_small",
    "qup status lab_small --json",
    "qup logs lab_foreign/slm_rft/sft train",
    "qup wait lab_small",
    "qup store ls",
    "qup store verify",
    "qup store gc --dry-run",
    "qup explain lab_familiar/numina_subset/dft --study lab_small",
    "qup explain lab_familiar/numina_subset/dft --study lab_small_lr",
    "qup compare lab_small lab_small_judged",
    "qup export lab_foreign/oracle_refined/sft exported/model --study lab_small",
    "qup export stream/lab_foreign/oracle_refined/sft exported/stream --study lab_small",
    "qup export lab_foreign/oracle_refined/sft exported/lm-eval --study lab_small --format lm-eval",
    "qup export lab_foreign/oracle_refined/sft exported/lighteval --study lab_small --format lighteval",
    *(
        f"python -m benchmarks.{name} --help"
        for name in ("answers", "oracle", "perplexity", "streams", "rollouts", "training", "launch", "report", "measures")
    ),
}
RUN = LAUNCHES | OTHERS
"""Run as they stand, in a copy of the repository, in the order in which a page has them."""

COMPOSES = "tests/config/test_conf_files.py::test_an_experiment_comes_to_its_cells_and_only_lacks_what_must_be_given"
OWN = "tests/end_to_end/test_own_study.py::"
COVERED = {
    "qup launch -m experiment=mine model=my_student study.name=my_student": f"{OWN}test_own_data_come_to_a_report",
    "qup launch -m experiment=mine model=my_student seed=0,1,2 study.name=three_seeds": f"{OWN}test_own_data_come_to_a_report",
    "make demo": "tests/end_to_end/test_lab_small.py::test_the_study_ends_with_a_row_for_each_cell",
    "make test": ".ci/run",
    "make smollm2": "tests/models/test_students.py::test_a_gguf_file_of_a_package_is_checked_without_loading",
    "python launch.py -m experiment=exposure": COMPOSES,
    "python launch.py -m experiment=teachers": COMPOSES,
    "python launch.py -m experiment=selection_measures": COMPOSES,
    "python launch.py -m experiment=cooperative": COMPOSES,
    'python launch.py -m source=file "source.path=responses/*.jsonl" source.question=instruction source.text=teacher_output source.teacher=ada,bob': "tests/data/test_traces.py::test_the_files_name_is_the_teacher",
    'python launch.py -m source=student+oracle "teacher=[lab_steps,lab_symbols]" source.teacher=student,lab_steps,lab_symbols': "tests/pipeline/test_build.py::test_an_arm_of_one_teacher_shares_that_teachers_candidates_and_the_alignment",
    "qup rank a.jsonl b.jsonl c.jsonl model=smollm2_135m problems=gsm8k problems.path=train.jsonl source.question=question": "tests/launch/test_rank.py::test_every_measure_ranks_the_teachers_over_the_problems_they_share",
    "python launch.py -m experiment=joint_selection": COMPOSES,
    "python launch.py -m experiment=mawps_teachers problems.path=gsm8k.jsonl evaluation.benchmarks.addsub.path=addsub.jsonl"
    ' "source.path=solutions/*_verification.jsonl"': COMPOSES,
    "python launch.py -m experiment=mawps_smollm2 problems.path=singleop.jsonl evaluation.benchmarks.addsub.path=addsub.jsonl": COMPOSES,
    "python launch.py -m experiment=joint_selection model=smollm2_135m problems=mawps problems.path=singleop.jsonl oracle=openai judge=none"
    ' "reward=[lab_steps]" selection.reward=lab_steps evaluation=mawps evaluation.benchmarks.addsub.path=addsub.jsonl "+evaluation.dev={addsub:100}" study.dry_run=true': COMPOSES,
}
"""Slow ones: the test that goes the same way, or the CI step that has the command. `make demo` is that graph on more problems."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def needs(self) -> str:
        """What its commands need; empty: nothing, they are run."""
        return next((word for word in self.words if word in NEEDS), "")

    @property
    def commands(self) -> list[str]:
        """Its commands without comments and prompts; lines that end in a backslash are joined."""
        lines = [line.removeprefix("$ ") for line in self.text.replace("\\\n", " ").splitlines()]
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]
        return [found for line in lines if (found := re.sub(r"\s+#.*", "", line).strip()) and not found.startswith("#")]


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    opened: tuple[int, list[str], list[str]] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.fullmatch(r"```(.*)", line)
        if fence and opened is None:
            opened = number, fence[1].split(), []
        elif fence and opened is not None:
            first, info, lines = opened
            found.append(Block(page.name, first, info[0] if info else "", tuple(info[1:]), "\n".join(lines) + "\n"))
            opened = None
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{page.name}: the block of line {opened and opened[0]} never ends"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL_BLOCKS = [block for block in BLOCKS if block.language in SHELLS]


def commands(*needs: str) -> list[str]:
    return [command for block in SHELL_BLOCKS if block.needs in needs for command in block.commands]


def test_there_are_commands_on_the_pages_that_should_have_them() -> None:
    assert {"README.md", "tutorial.md", "cluster.md", "benchmarks.md", "stages-and-keys.md"} <= {block.page for block in SHELL_BLOCKS}
    assert len(commands("", *NEEDS)) > 50


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_says_what_it_is_in_words_that_are_known(block: Block) -> None:
    assert block.language, f"{block.page}:{block.line}: a fence without a language"
    if block.language in SHELLS:
        assert set(block.words) <= NEEDS, f"{block.page}:{block.line}: {block.words}; there are {sorted(NEEDS)}"
    elif block.words:
        assert block.words[0] == "apply" or block.words[0].startswith("file=")


def test_every_command_is_in_one_of_the_tables() -> None:
    unlisted = [command for command in commands("", "interrupt") if command not in RUN]
    uncovered = [command for command in commands("slow") if command not in COVERED]
    assert not unlisted + uncovered, (
        f"in {Path(__file__).name}, add to RUN: {unlisted} (or mark the block slow, bench, cluster, gpu or key); "
        f"name the test that covers it in COVERED: {uncovered}"
    )


def test_the_tables_hold_no_command_that_is_gone() -> None:
    assert RUN - set(commands("", "interrupt")) == set()
    assert COVERED.keys() - set(commands("slow")) == set()


@pytest.mark.parametrize("command", COVERED)
def test_what_covers_a_slow_command_is_there(command: str) -> None:
    path, _, test = COVERED[command].partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert (f"def {test}(" if test else f"\n{command}\n") in text
    if command.startswith("make "):
        assert f"\n{command.split()[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_make_demo_is_the_command_that_the_readme_says() -> None:
    (recipe,) = re.findall(r"^demo:.*\n\t(.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert recipe.endswith("python launch.py -m experiment=lab")


@pytest.mark.parametrize("command", sorted({*commands("cluster", "gpu", "key", "bench")}))
def test_what_cannot_be_run_here_is_at_least_accepted(command: str) -> None:
    """Launches compose without a fault, qup's arguments parse, benchmarks have these parts and options."""
    words = shlex.split(command)
    if words[:2] == ["python", "launch.py"]:
        composer = Composer.over()
        cells = composer.grid(expand(composer, [word for word in words[2:] if word != "-m" and not word.startswith("hydra/")]))
        assert len(cells) > 0
        assert grid_faults(cells) == []
    elif words[0] == "qup":
        _parser().parse_args(words[1:])
    else:
        assert words[:2] == ["python", "-m"], f"{command}: what is this?"
        source = (ROOT / Path(*words[2].split("."))).with_suffix(".py").read_text(encoding="utf-8")
        for word in words[3:]:
            if not re.fullmatch(r"\d+|.*\.md", word):
                assert f'"{word}"' in source or f"def {word}(" in source, f"{command}: {word}"


def test_the_names_of_cells_and_studies_on_the_cluster_are_those_of_the_experiment() -> None:
    composer = Composer.over()
    cells = composer.grid(expand(composer, ["experiment=paper/table1"]))
    labels = {f"{cell.model.name}/{cell.stream.name}/{cell.trainer.objective}" for cell in cells}
    named = [word for command in commands("cluster") if command.startswith("qup ") for word in shlex.split(command)[2:]]
    assert {word for word in named if "/" in word} <= labels
    assert {word for word in named if word.startswith("paper")} == {cells[0].study.name}


def copy_of_the_repository(to: Path) -> Path:
    """What git tracks or would, without pictures."""
    made = {"store", "multirun", "wandb"}  # beside the packages, not in them
    skip = shutil.ignore_patterns(".*", "__pycache__", "images", "*.egg-info", "build", "dist")
    return Path(shutil.copytree(ROOT, to, ignore=lambda place, names: skip(place, names) | (made if Path(place) == ROOT else set())))


def run(folder: Path, command: str) -> tuple[int, str]:
    """Exit status and output of a command typed in the copy."""
    words = shlex.split(command)
    words = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
    done = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "COLUMNS": "240"}


def heed_interrupts() -> None:
    """A test session started in the background has Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(folder: Path, command: str) -> int:
    """Starts a launch and presses Ctrl-C once its study is registered; returns the exit status."""
    (name,) = [word.partition("=")[2] for word in shlex.split(command) if word.startswith("study.name=")]
    words = [sys.executable, *shlex.split(command)[1:]]
    pipes: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(words, cwd=folder, env=environment(folder), preexec_fn=heed_interrupts, **pipes)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "multirun" / name / "logs").exists():
            assert process.poll() is None, f"{command} did not start\n{process.communicate()[0].decode()[-2000:]}"
            assert time.monotonic() < deadline, f"{command} did not start"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    return process.returncode


def run_page(folder: Path, name: str) -> dict[str, str]:
    """Runs a page's commands in their order; the outputs by command. Fails with all that went wrong."""
    outputs, faults = {}, []
    for block in (block for block in SHELL_BLOCKS if block.page == name and block.needs in ("", "interrupt")):
        for command in block.commands:
            if block.needs == "interrupt":
                status, out = interrupted(folder, command), ""
                status = 0 if status == 130 else status
            else:
                status, out = run(folder, command)
            outputs[command] = out
            if status:
                faults.append(f"{name}:{block.line}: {command}: exit status {status}\n{out[-2000:]}")
    assert not faults, "\n".join(faults)
    return outputs


def run_at_once(folder: Path, name: str, skip: Set[str] = frozenset()) -> dict[str, str]:
    """As `run_page`, two commands side by side, without those of `skip`."""
    chosen = [
        command for block in SHELL_BLOCKS if block.page == name and not block.needs for command in block.commands if command not in skip
    ]
    with ThreadPoolExecutor(2) as pool:
        ended = dict(zip(chosen, pool.map(lambda command: run(folder, command), chosen), strict=True))
    faults = [f"{name}: {command}: exit status {status}\n{out[-2000:]}" for command, (status, out) in ended.items() if status]
    assert not faults, "\n".join(faults)
    return {command: out for command, (_, out) in ended.items()}


@pytest.fixture(scope="module")
def site(lab_small: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout beside the one lab_small study, copied."""
    folder = copy_of_the_repository(tmp_path_factory.mktemp("docs") / "qup")
    for name in ("store", "multirun"):
        shutil.copytree(lab_small[0] / name, folder / name, symlinks=True)
    return folder


def test_the_tutorial_does_what_it_says(site: Path) -> None:
    out = run_page(site, "tutorial.md")
    assert "nothing was computed" in out["python launch.py -m experiment=lab_small"]
    changed = next(text for command, text in out.items() if "study.name=plan_lr" in command)
    assert "60 to run" in changed
    assert not (site / "store" / "studies" / "plan_lr").exists()
    plan = json.loads((site / "multirun" / "plan_lr" / "plan.json").read_text())
    assert {stage["name"] for stage in plan["stages"] if stage["state"] == "run"} == {"train", "responses", "evaluate"}
    judged = out["python launch.py -m experiment=lab_small retention.seed=1 study.name=lab_small_judged"]
    assert "10 stages ran" in judged
    explained = out["qup explain lab_familiar/numina_subset/dft --study lab_small_lr"]
    assert "trainer.lr: 0.001 → 0.002" in explained
    assert "input train: " in explained
    assert out["qup compare lab_small lab_small_judged"].count("the same results") == 22
    assert "0 would go" in out["qup store gc --dry-run"]
    assert (site / "elsewhere" / "lab_small" / "report.html").exists()
    assert (site / "exported" / "model" / "config.json").exists()
    assert (site / "exported" / "stream" / "train.jsonl").exists()
    assert (
        len(list((site / "exported" / "lm-eval").rglob("samples_*.jsonl")))
        == len(list((site / "exported" / "lighteval").rglob("*.parquet")))
        > 0
    )


@pytest.mark.parametrize("name", sorted({block.page for block in SHELL_BLOCKS} - {"README.md", "tutorial.md"}))
def test_the_commands_of_a_page_run(site: Path, name: str) -> None:
    """Two at a time: on these pages no command needs another's result. What the tutorial runs too is run there."""
    run_at_once(site, name, {command for block in SHELL_BLOCKS if block.page == "tutorial.md" for command in block.commands})


@pytest.fixture(scope="module")
def extended(lab_small: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with everything added that the README says how to add."""
    folder = copy_of_the_repository(tmp_path_factory.mktemp("readme") / "qup")
    weights = next((lab_small[0] / "store" / "train").glob("*/model"))
    for name in ("my_student", "my_reward"):
        shutil.copytree(weights, folder / "models" / name)
    described = folder / "models" / "my_reward" / "config.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"id2label": {"0": "reward"}}))
    for block in BLOCKS:
        if block.words and block.words[0].startswith("file="):
            assert len(block.text.splitlines()) <= 20, block.words
            path = folder / block.words[0].removeprefix("file=")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.words == ("apply",):
            assert len(block.text.splitlines()) <= 20
            done = subprocess.run(
                ["git", "apply", "--unidiff-zero", "-"], cwd=folder, input=block.text, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
    return folder


def test_what_the_readme_adds_is_planned(extended: Path) -> None:
    out = run_at_once(extended, "README.md")
    tried = next(text for command, text in out.items() if "sft,dft,tempered" in command)
    assert re.search(r"^train +3 ", tried, re.M)
    assert "tempered" in (extended / "docs" / "config.md").read_text(encoding="utf-8")


def test_the_objective_that_the_readme_adds_has_the_gradient_that_it_states(extended: Path) -> None:
    checked = """
import torch
from qup.training.objectives import OBJECTIVES
logp = torch.tensor([-0.1, -3.0])
loss, weight = OBJECTIVES["tempered"](logp)
assert torch.allclose(weight, logp.exp().sqrt()) and torch.allclose(loss, -weight * logp)
"""
    done = subprocess.run([sys.executable, "-c", checked], cwd=extended, env=environment(extended), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
