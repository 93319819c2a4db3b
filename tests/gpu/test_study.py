"""A study by the commands a user types, on a machine with a GPU: stages forked from one process, on the card and beside it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qup.store import Store
from tests.helpers.lab import ROOT, cells, environment, launch
from tests.launch.test_rank import folder as ranking
from tests.launch.test_rank import ranked

__all__ = ["ranking"]

pytestmark = pytest.mark.timeout(900)

FORK = """
import os, sys
from qup.launch.local import zygote

zygote.preload()
for name in zygote.WHEN_IDLE:
    getattr(zygote, name)()
import torch

def stage(number):
    device = sys.argv[1]
    from qup.training.ranks import quiet_deepspeed
    quiet_deepspeed()
    x = torch.full((1000, 1000), float(number), device=device)
    return bool(((x @ x) == number * number * 1000).all()) and torch.device(device).type == x.device.type

assert not torch.cuda.is_initialized()
pids = []
for number in (1, 2, 3):
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = 0 if stage(number) else 2
        finally:
            os._exit(status)
    pids.append(pid)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
"""

ON_GPU = ("rollouts", "train", "evaluate", "perplexity", "reward")


def test_stages_forked_from_the_process_with_the_imports_share_the_card(device: str) -> None:
    """Nothing there has looked for the GPU, else the three could not use it; they use it at once."""
    done = subprocess.run([sys.executable, "-c", FORK, device], env=environment(), capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[0, 0, 0]"], done.stderr


def test_a_study_runs_as_it_stands_and_a_second_run_computes_nothing(lab_small: tuple[Path, str]) -> None:
    """The local cluster gives its stages no GPU: they run on the CPU, beside the card."""
    place, _ = lab_small
    before = cells(place)
    assert len(before.splitlines()) == 23
    assert (place / "multirun" / "lab_small" / "report" / "report.html").exists()
    status, out = launch(place)
    assert status == 0, out
    assert "nothing was computed" in out
    assert cells(place) == before


def test_a_study_on_the_gpu_comes_to_its_report(device: str, lab_small: tuple[Path, str], tmp_path: Path) -> None:
    """Every stage that may use the card is given it; students and reward model are there already."""
    for kind in ("student", "reward_model"):
        shutil.copytree(lab_small[0] / "store" / kind, tmp_path / "store" / kind)
    grid = "study.grids=[{model: lab_foreign, stream: 'slm_rft,base', trainer: sft}]"
    gpus = [f"cluster.{name}.gpus={int(device == 'cuda')}" for name in ON_GPU]
    asked = ("study.name=on_gpu", grid, f"model.device={device}", *gpus)
    status, out = launch(tmp_path, *asked)
    assert status == 0, out
    found = list(csv.DictReader((tmp_path / "multirun" / "on_gpu" / "report" / "cells.csv").open(encoding="utf-8")))
    assert {row["stream"] for row in found} == {"slm_rft", "base"}
    assert all(row["total"] for row in found)
    made = {artifact.stage: artifact for artifact in Store(tmp_path / "store").artifacts()}
    assert device in json.dumps(made["rollouts"].manifest)
    steps = [json.loads(line) for line in made["train"].file("steps.jsonl").read_text(encoding="utf-8").splitlines()]
    assert steps[-1]["nll"] < steps[0]["nll"]
    status, out = launch(tmp_path, *asked)
    assert status == 0, out
    assert "nothing was computed" in out


def test_teachers_are_ranked_by_several_processes_on_one_card(
    device: str, ranking: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    measures = "measure=[mean_logprob,lark,length,lalp]"
    status, told = ranked(ranking, ["short.jsonl", "long.jsonl"], capsys, measures, f"model.device={device}")
    assert status == 0
    assert "short, 100 % of resamples" in told
