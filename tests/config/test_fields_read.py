"""A setting that nothing reads is a bug. mypy tells which class's field an attribute is; names alone would not."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qup.config import schema

QUP = Path(schema.__file__).resolve().parents[2]
ROOT = QUP.parent

OTHERWISE = {
    "Sampling.shard_size": "config/schema/student.py",
    "Stream.source": "config/settle.py",
    "Stream.refinement": "config/settle.py",
    "Study.grids": "config/sweeps.py",
    "Study.seed": "config/settle.py",
    "Config.seed": "config/settle.py",
    "Cluster.problems": "pipeline/kinds.py",
    "Cluster.student": "pipeline/kinds.py",
    "Cluster.reward_model": "pipeline/kinds.py",
    "Cluster.rollouts": "pipeline/kinds.py",
    "Cluster.solvable": "pipeline/kinds.py",
    "Cluster.oracle": "pipeline/kinds.py",
    "Cluster.streams": "pipeline/kinds.py",
    "Cluster.reward": "pipeline/kinds.py",
    "Cluster.perplexity": "pipeline/kinds.py",
    "Cluster.retention": "pipeline/kinds.py",
    "Cluster.train": "pipeline/kinds.py",
    "Cluster.evaluate": "pipeline/kinds.py",
    "Config.perplexity": "config/measured.py",
    "Measure.weight": "measures/scas.py",
    "Measure.beta": "measures/car.py",
    "Measure.brier": "measures/lark.py",
    "Measure.unit": "measures/length.py",
    "Config.verdict": "analysis/findings/survey.py",
    "Verdict.reward": "analysis/findings/survey.py",
    "Verdict.baseline": "analysis/findings/survey.py",
    "Verdict.margin": "analysis/findings/survey.py",
}
"""What the configuration itself uses up, or is read by a name in a text, and the file that does."""


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Class.field of every setting that a file outside of qup/config reads."""
    folder = tmp_path_factory.mktemp("mypy")
    notes = folder / "reads"
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    settings = folder / "pyproject.toml"
    settings.write_text(text.replace("[tool.mypy]\n", f'[tool.mypy]\nplugins = ["{ROOT}/tests/helpers/mypy_reads.py"]\n'), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(settings), f"--cache-dir={os.devnull}"],
        cwd=ROOT,
        env=dict(os.environ, QUP_TEST_READS=str(notes)),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split("\t") for line in notes.read_text(encoding="utf-8").splitlines()]
    return {name for name, path in lines if not path.startswith(("qup/config/", str(QUP / "config")))}


def test_every_setting_is_read_outside_of_the_configuration(reads: set[str]) -> None:
    classes = [cls for cls in vars(schema).values() if dataclasses.is_dataclass(cls) and isinstance(cls, type)]
    fields = [f"{cls.__name__}.{field.name}" for cls in classes for field in dataclasses.fields(cls)]
    assert len(fields) > 180
    assert [name for name in fields if name not in reads and name not in OTHERWISE] == []


def test_what_is_read_otherwise_is_read_where_it_says() -> None:
    for key, file in OTHERWISE.items():
        text = (QUP / file).read_text(encoding="utf-8")
        name = key.partition(".")[2]
        assert re.search(rf"\.{name}\b|['\"]([\w.]+\.)?{name}['\"]", text), key
