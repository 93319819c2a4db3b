"""The JSON schemas of the YAML files: what is valid in conf/ is valid by them, and a slip is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from qup.config.door import CONF
from qup.config.jsonschema import schemas

jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema; the extra `test` has it")

OWN = Path(__file__).parents[2] / "qup" / "commands" / "folder" / "conf"
FILES = sorted(path for path in (*CONF.rglob("*.yaml"), *OWN.rglob("*.yaml")) if path.parent != CONF and "hydra" not in path.parts)
SCHEMAS = schemas()


def schema_of(path: Path) -> str:
    """By the package that Hydra puts the file at."""
    return "config" if "# @package _global_" in path.read_text(encoding="utf-8") else path.parent.name


def errors(name: str, content: Any) -> list[str]:
    validator = jsonschema.Draft7Validator(SCHEMAS[name])
    return [error.message for error in validator.iter_errors(content)]


def test_every_schema_is_a_schema() -> None:
    for schema in SCHEMAS.values():
        jsonschema.Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_the_configuration_is_valid(path: Path) -> None:
    assert errors(schema_of(path), OmegaConf.to_container(OmegaConf.load(path), resolve=False)) == []


def test_a_file_of_ones_own_names_its_schema() -> None:
    files = sorted(OWN.rglob("*.yaml"))
    assert len(files) == 6
    for path in files:
        (named,) = re.findall(r"^# yaml-language-server: \$schema=\.\./\.\./schema/(\w+)\.json$", path.read_text(encoding="utf-8"), re.M)
        assert named == schema_of(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config", {"trainr": {"lr": 1e-5}}),
        ("config", {"trainer": {"learning_rate": 1e-5}}),
        ("config", {"study": {"grids": {"seed": "1,2"}}}),
        ("trainer", {"objective": "dtf"}),
        ("trainer", {"lr": 0}),
        ("trainer", {"epochs": 1.5}),
        ("evaluation", {"benchmarks": {"mine": {"gold": "plane"}}}),
        ("evaluation", {"benchmarks": {"mine": {"quesion": "q"}}}),
        ("reward", {"format": "nemotorn"}),
    ],
)
def test_a_slip_is_found(name: str, content: dict[str, Any]) -> None:
    assert errors(name, content) != []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trainer", {"lr": "${oc.env:LR}"}),
        ("trainer", {"lora": None, "micro_batch": "auto"}),
        ("config", {"defaults": ["lab", {"override /model": "mine"}], "hydra": {"job": {}}}),
        ("config", {"reward": {"mine": {"path": "x"}}}),
    ],
)
def test_what_the_configuration_allows_is_valid(name: str, content: dict[str, Any]) -> None:
    assert errors(name, content) == []
