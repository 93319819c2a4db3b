"""Real stages on a real SLURM: the same results as here, on several tasks, and through requeues."""

import csv
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qup.store import Store
from tests.helpers.lab import ROOT, cells, environment

pytestmark = pytest.mark.timeout(900)

CHEAP = ["cluster=slurm_test", "model=lab_foreign", "trainer.batch_size=4"]
GRID = "study.grids=[{stream: 'slm_rft,style_aligned', trainer: sft}, {stream: base}]"
LONG = ["stream=slm_rft", "trainer=sft", "trainer.max_steps=800", "trainer.epochs=400", "study.grids=[]"]
"""A training of some ten seconds, in the middle of which things happen."""
TIMES = ("seconds", "tokens_per_s", "memory")


def launch(folder: Path, *overrides: str, where: str = "slurm", name: str = "real") -> None:
    command = [sys.executable, str(ROOT / "launch.py"), "-m", "experiment=lab_small", f"study.name={name}", f"hydra/launcher={where}"]
    done = subprocess.run([*command, *CHEAP, *overrides], cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def wait(folder: Path, name: str = "real") -> None:
    command = [sys.executable, "-m", "qup", "wait", name]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def training(folder: Path, name: str) -> tuple[Store, str]:
    record = json.loads((folder / "multirun" / name / "study.json").read_text())
    return Store(folder / "store"), record["cells"][0]["stages"]["train"]


def curve(folder: Path, name: str) -> list[dict]:
    store, key = training(folder, name)
    lines = store.get("train", key).file("steps.jsonl").read_text().splitlines()
    return [{field: value for field, value in json.loads(line).items() if field not in TIMES} for line in lines]


def upstream(whole: Path, folder: Path) -> None:
    """A store with everything that a training needs."""
    shutil.copytree(
        whole / "store", folder / "store", ignore=shutil.ignore_patterns("train", "responses", "evaluate", "studies", "queue", "shared")
    )


@pytest.fixture(scope="module")
def here(lab_small, tmp_path_factory):
    """The grid, and one long training, by the local launcher."""
    folder = tmp_path_factory.mktemp("here")
    upstream(lab_small[0], folder)
    launch(folder, GRID, where="local")
    launch(folder, *LONG, where="local", name="long")
    return folder


def test_the_table_is_the_same_as_from_the_local_launcher(slurm, here, tmp_path):
    launch(tmp_path, GRID)
    wait(tmp_path)
    slurm.wait_for(lambda: (tmp_path / "multirun" / "real" / "report" / "cells.csv").exists(), "the report job")
    assert cells(tmp_path, "real") == cells(here, "real")
    rows = list(csv.DictReader(io.StringIO(cells(tmp_path, "real"))))
    assert {row["stream"] for row in rows} == {"slm_rft", "style_aligned", "base"}
    assert all(row["total"] for row in rows)


def test_a_requeue_in_the_middle_of_training_gives_the_same_curve(slurm, here, tmp_path):
    upstream(here, tmp_path)
    launch(tmp_path, *LONG, name="long")
    store, key = training(tmp_path, "long")
    steps = store.work("train", key) / "steps.jsonl"
    slurm.wait_for(lambda: steps.exists() and len(steps.read_text().splitlines()) >= 30, "some steps", 120)
    running = slurm.run("squeue", "-h", "-t", "running", "-o", "%i %j").splitlines()
    (job,) = [line.split()[0] for line in running if line.split()[1].startswith("long.train")]
    slurm.run("scancel", "--signal=USR2", job)
    slurm.wait_for(lambda: "Restarts=1" in slurm.run("scontrol", "show", "job", job), "the requeue", 60)
    reached = len(steps.read_text().splitlines())
    wait(tmp_path, "long")
    assert reached < 800
    assert curve(tmp_path, "long") == curve(here, "long")
    mine, theirs = (Store(folder / "store").get("train", key) for folder in (tmp_path, here))
    weights = [found.directory("model") / "model.safetensors" for found in (mine, theirs)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_two_nodes_with_two_tasks_each_train_one_model(slurm, here, tmp_path):
    upstream(here, tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    upstream(here, alone)
    short = ["stream=slm_rft", "trainer=sft", "trainer.max_steps=12", "trainer.epochs=20", "study.grids=[]"]
    launch(tmp_path, *short, "cluster.train.nodes=2", "cluster.train.tasks=2", "cluster.train.mem=4G", name="wide")
    assert any(line.split() == ["2", "4"] for line in slurm.run("squeue", "-h", "-t", "all", "-o", "%D %C").splitlines())
    wait(tmp_path, "wide")
    launch(alone, *short, where="local", name="wide")
    store, key = training(tmp_path, "wide")
    assert store.get("train", key).metrics["world_size"] == 4
    assert Store(alone / "store").get("train", key).metrics["world_size"] == 1
    wide, one = curve(tmp_path, "wide"), curve(alone, "wide")
    assert [step["nll"] for step in wide] == pytest.approx([step["nll"] for step in one], rel=1e-4)
    assert len(wide) == 12


def test_a_task_killed_on_the_other_node_fails_the_training_and_says_which(slurm, here, tmp_path):
    upstream(here, tmp_path)
    more = ["cluster.train.nodes=2", "cluster.train.tasks=1", "cluster.train.mem=4G", "trainer.timeout_s=20"]
    launch(tmp_path, *LONG, *more, name="torn")
    store, key = training(tmp_path, "torn")
    steps = store.work("train", key) / "steps.jsonl"
    slurm.wait_for(lambda: steps.exists() and len(steps.read_text().splitlines()) >= 5, "some steps", 120)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_rank(entry, slurm, "1"):
            (entry / "comm").exists() and subprocess.run(["kill", "-9", entry.name], check=False)
    command = [sys.executable, "-m", "qup", "wait", "torn"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert time.monotonic() - began < 90
    status = subprocess.run(
        [sys.executable, "-m", "qup", "status", "torn"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert "rank 1" in status.stdout, status.stdout


def is_rank(entry: Path, slurm, rank: str) -> bool:
    try:
        environ = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"SLURM_CONF={slurm.conf}".encode() in environ and f"SLURM_PROCID={rank}".encode() in environ
