"""The paper's experiments under the names that they are written with: models, data sets and an Oracle on loopback.

Sizes apart not a line of an experiment is changed. `make test-rehearsal` runs all of them; without it the smallest.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.lab import ROOT
from tests.rehearsal.endpoint import endpoint
from tests.rehearsal.hub import hub
from tests.rehearsal.servers import serving
from tests.rehearsal.world import STUDENTS, build

SIZES = (
    "cluster=local",
    "trainer.batch_size=8",
    "rollouts.sampling.max_new_tokens=64",
    "evaluation.sampling.max_new_tokens=64",
    "evaluation.sampling.n=2",
)
ALL = pytest.mark.skipif(not os.environ.get("QUP_TEST_REHEARSAL"), reason="make test-rehearsal runs it")
pytestmark = pytest.mark.timeout(3600)


@dataclass(frozen=True)
class Place:
    """A machine with a hub and an Oracle of its own."""

    folder: Path
    environment: dict[str, str]
    oracle: str

    def launch(self, experiment: str, *overrides: str) -> tuple[list[dict[str, str]], str]:
        """Runs an experiment; its cells and its output."""
        command = [sys.executable, str(ROOT / "launch.py"), "-m", f"experiment={experiment}", f"oracle.base_url={self.oracle}/v1"]
        done = subprocess.run(
            [*command, *SIZES, *overrides],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        report = self.folder / "multirun" / experiment.replace("/", "-") / "report"
        assert (report / "report.html").stat().st_size > 10_000
        with (report / "cells.csv").open(encoding="utf-8") as stream:
            return list(csv.DictReader(stream)), done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("hub")
    students = list(STUDENTS) if os.environ.get("QUP_TEST_REHEARSAL") else ["qwen2_5_math_1_5b"]
    solutions = build(root, students, problems=26)
    home = tmp_path_factory.mktemp("home")
    with serving(hub(root)) as hub_address, serving(endpoint(solutions)) as oracle:
        environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
        ours = {
            "HF_ENDPOINT": hub_address,
            "HF_HOME": str(home),
            "OPENAI_API_KEY": "not-a-key",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
        }
        yield Place(tmp_path_factory.mktemp("study"), {**environment, **ours}, oracle)


def test_table1(place: Place) -> None:
    rows, out = place.launch("paper/table1")
    assert len(rows) == 9
    assert all(row["total"] != "" for row in rows)
    trained = [row for row in rows if row["stream"] != "base"]
    assert all(float(row["ppl"]) > 1 and row["reward_qwen2_5_math_rm_72b"] != "" for row in trained)
    assert len({row["n_train"] for row in trained}) == 1, "every arm covers the fixed problem set"
    assert "not-a-key" not in out
    secrets = [path for path in place.folder.rglob("*") if path.is_file() and b"not-a-key" in path.read_bytes()]
    assert secrets == []
    (without_gold,) = [
        json.loads(path.read_text())["metrics"]["excluded_no_gold"] for path in place.folder.glob("store/problems/*/manifest.json")
    ]
    assert without_gold == 1, "proofs are excluded and counted"


@ALL
@pytest.mark.parametrize(
    "experiment", ["paper/style_aligned", "paper/students", "paper/reward_models", "paper/precision", "paper/retention"]
)
def test_the_others(place: Place, experiment: str) -> None:
    rows, _ = place.launch(experiment, *([f"judge.base_url={place.oracle}/v1"] if experiment == "paper/retention" else []))
    assert all(row["total"] != "" for row in rows)
    if experiment == "paper/students":
        assert {row["model"] for row in rows} == set(STUDENTS)
