"""A finished study of two students and two arms, as qup.open finds it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from qup.notebook import OpenStudy
from qup.pipeline import build_graph
from qup.records import CANDIDATES
from qup.store import save_table
from qup.study import Study
from tests.analysis import world
from tests.analysis.world import World, build_study, lab_cells

PROBLEMS = 10


def make_candidates(out: Path, node, world, config, rng) -> dict:
    """Two candidates a problem, backwards, so that only a join by name can be right."""
    rows = [
        {
            "problem_id": f"p{problem:04d}", "candidate": candidate, "teacher": "student", "text": "", "extracted": f"{problem}/{candidate}",
            "correct": True, "verdict": "wrong" if candidate else "equal", "eligible": True, "status": "ok", "attempts": 1,
            "input_tokens": 0, "output_tokens": 0, "edit_distance": 0.5, "rules": [], "turns": [],
        }
        for problem in reversed(range(PROBLEMS - 1))
        for candidate in (1, 0)
    ]  # fmt: skip
    save_table(out, "candidates", pa.Table.from_pylist(rows, schema=CANDIDATES))
    return {"n": PROBLEMS}


def built(root: Path, **settings) -> Path:
    """A folder in which the study `lab` was launched."""
    made = World(
        lab_cells(arms=("slm_rft", "oracle_refined"), benchmarks={"easy": 12, "hard": 8}, dev={"hard": 3}), problems=PROBLEMS, steps=5
    )
    made = dataclasses.replace(made, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "_make_candidates", make_candidates)
        folder, _ = build_study(root, made, "lab")
    graph = build_graph(made.cells)
    study = Study.load(folder)
    cells = tuple(dataclasses.replace(cell, wanted=tuple(of.wanted)) for cell, of in zip(study.cells, graph.cells, strict=True))
    nodes = {ref: tuple(node.inputs.values()) for ref, node in graph.nodes.items()}
    dataclasses.replace(study, cells=cells, nodes=nodes).save()
    (root / "multirun").symlink_to(folder.parent)
    return root


@pytest.fixture(scope="session")
def launched(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="session")
def study(launched: Path) -> OpenStudy:
    import qup

    return qup.open("lab", launched / "multirun")
