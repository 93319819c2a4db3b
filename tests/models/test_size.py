"""How many weights a student has, told without loading it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from qup.config.schema import Model, Trainer
from qup.launch.costs import LAB_MODEL_BYTES, MODEL_BYTES
from qup.launch.plan import make_plan
from qup.models.size import parameters
from qup.pipeline import KINDS
from tests.helpers.cells import cell


def student(folder: Path, shards: int = 2) -> Path:
    """A directory whose weights are 1,000 in each file, halves of two bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        weights = {f"a.{number}": np.zeros((30, 30), np.float16), f"b.{number}": np.zeros(100, np.float16)}
        save_file(weights, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
    return folder


def test_weights_of_a_directory_are_counted_in_all_its_files(tmp_path: Path) -> None:
    assert parameters(Model(path=str(student(tmp_path / "mine")), lab=None)) == 2000


def test_weights_of_older_files_are_counted_by_their_size_and_the_configurations_dtype(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(4000))
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    assert parameters(Model(path=str(tmp_path))) == 2000


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("Qwen/Qwen2.5-Math-1.5B", 1.5e9),
        ("deepseek-ai/deepseek-math-7b-base", 7e9),
        ("meta-llama/Llama-3.2-3B", 3e9),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6),
        ("org/Some-8x7B-v1", 56e9),
        ("org/phi-2", None),
        ("org/1bit-model", None),
    ],
)
def test_a_name_on_the_hub_says_how_large_it_is(path: str, count: float | None) -> None:
    assert parameters(Model(path=path)) == count


def test_what_was_downloaded_counts_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    student(tmp_path / "models--org--small-7b" / "snapshots" / ("a" * 40), shards=1)
    assert parameters(Model(path="org/small-7b", content="a" * 40)) == 1000
    assert parameters(Model(path="org/small-7b", content="b" * 40)) == 7e9


@pytest.mark.parametrize(("name", "count"), [("s.Q4_1.gguf", 1600), ("s-F16.gguf", 500), ("s.Q8_0.gguf", 8000 / 9)])
def test_a_gguf_files_weights_have_the_bits_that_its_name_says(tmp_path: Path, name: str, count: float) -> None:
    (tmp_path / name).write_bytes(bytes(1000))
    assert parameters(Model(path=str(tmp_path / name))) == count
    assert parameters(Model(path=str(tmp_path), gguf_file=name)) == count


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{]"])
def test_files_that_are_no_weights_tell_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert parameters(Model(path=str(tmp_path))) is None


@pytest.mark.parametrize(("dtype", "each"), [("float32", 4), ("bfloat16", 2)])
def test_a_plan_reckons_with_the_weights_that_a_directory_really_holds(tmp_path: Path, dtype: str, each: int) -> None:
    def trained(model: Model) -> int:
        one = cell(trainer=Trainer(dtype=dtype, seed=0), store=replace(cell().store, dir=str(tmp_path / "store")))
        plan = make_plan([replace(one, model=model)], tmp_path / "study")
        return sum(planned.cost.bytes for ref, planned in plan.to_run.items() if KINDS[ref.kind].weights)

    path = str(student(tmp_path / "mine"))
    assert 2000 * each <= trained(Model(path=path, content="mine")) < 2000 * each + 100_000
    assert trained(Model(path="org/of-unknown-size", content="hub")) == MODEL_BYTES
    assert trained(cell().model) == LAB_MODEL_BYTES


def test_a_small_student_of_ones_own_is_not_estimated_as_one_of_billions(tmp_path: Path) -> None:
    def seconds(path: str) -> float:
        long = cell(store=replace(cell().store, dir=str(tmp_path / "store")), trainer=Trainer(seed=0, epochs=1000))
        one = replace(long, model=Model(path=path, content=path))
        plan = make_plan([one], tmp_path / "study")
        return sum(planned.cost.seconds for ref, planned in plan.to_run.items() if ref.kind == "train")

    assert seconds(str(student(tmp_path / "mine"))) < seconds("org/student-1B") / 3 < seconds("org/student-7B") / 3
