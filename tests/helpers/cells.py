"""Cells for tests of planning: built directly, without Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qup.config.schema import (
    Benchmark,
    Config,
    Evaluation,
    LabProblems,
    LabReward,
    LabStudent,
    Model,
    Oracle,
    Problems,
    Refinement,
    Reward,
    Selection,
    Source,
    Stream,
    Study,
    Trainer,
)
from qup.config.schema import Store as StoreConfig
from qup.errors import ConfigError, Fault
from qup.launch.check import validate_grid

ARMS = {
    "slm_rft": ("student", "none"),
    "oracle_refined": ("student", "refine"),
    "oracle_synthesized": ("oracle", "none"),
    "style_aligned": ("student", "style_aligned"),
    "numina_subset": ("dataset", "none"),
    "base": ("none", "none"),
}


def cell(stream: str = "slm_rft", objective: str = "sft", **changes: Any) -> Config:
    """A lab cell as it comes out of composition."""
    source, refinement = ARMS[stream]
    lab = Oracle(name="lab", backend="lab", seed=0)
    made = Config(
        problems=Problems(lab=LabProblems(n=20)),
        model=Model(lab=LabStudent(steps=10)),
        source=Source(name=source),
        refinement=Refinement(name=refinement),
        selection=Selection(seed=0),
        stream=Stream(name=stream, source=source, refinement=refinement),
        oracle=lab,
        judge=lab,
        reward={
            "lab_outcome": Reward(lab=LabReward()),
            "lab_steps": Reward(lab=LabReward(kind="steps")),
        },
        trainer=Trainer(objective=objective, seed=0),
        evaluation=Evaluation(benchmarks={"two": Benchmark(lab=LabProblems(n=10, seed=7))}),
        study=Study(name="test"),
        store=StoreConfig(),
    )
    return replace(made, **changes)


def grid_faults(cells: Sequence[Config]) -> list[Fault]:
    """Everything that a grid is refused for."""
    try:
        validate_grid(cells)
    except ConfigError as refused:
        return list(refused.faults)
    return []


GRID = [cell(stream, objective) for stream in ("slm_rft", "oracle_refined") for objective in ("sft", "dft")] + [cell("base")]
"""Two arms by both objectives, and the untuned student."""
