"""Tests of what runs on a GPU, skipped where there is none.

QUP_TEST_DEVICE=cpu runs those that can on the CPU: a rehearsal of the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from qup.training.ranks import World, process_group
from tests.training.conftest import cut, stream, students, warm
from tests.training.world import Workshop

__all__ = ["cut", "stream", "students", "warm"]

DEVICE = os.environ.get("QUP_TEST_DEVICE", "cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if DEVICE == "cuda" and not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="this machine has no GPU that torch can use"))


@pytest.fixture(scope="session")
def device() -> str:
    """What is tested: cuda, or in a rehearsal cpu."""
    return DEVICE


@pytest.fixture
def card(device: str) -> Iterator[torch.device]:
    """A real GPU, none of whose memory is held by earlier tests."""
    if device != "cuda":
        pytest.skip("a rehearsal on the CPU has no GPU memory and no GPU kernels")
    import gc

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield torch.device("cuda:0")


@pytest.fixture
def liger() -> Iterator[None]:
    """Liger's kernels, which change transformers for the whole process: what they replaced is put back. A stage has a process of its own."""
    pytest.importorskip("liger_kernel")
    from transformers.models.llama import modeling_llama
    from transformers.models.qwen2 import modeling_qwen2

    before = [(module, dict(vars(module))) for module in (modeling_llama, modeling_qwen2)]
    yield
    for module, names in before:
        vars(module).update(names)


@pytest.fixture(scope="module")
def group(device: str) -> Iterator[World]:
    """A process group of one rank."""
    world = World(device="cuda:0" if device == "cuda" else device)
    with process_group(world):
        yield world


@pytest.fixture
def shop(tmp_path: Path, students: dict[str, Path], stream: Path, device: str) -> Callable[..., Workshop]:
    """A workshop of another name, student, stream or device."""

    def make(name: str, student: str = "llama", **changes: Any) -> Workshop:
        return Workshop(tmp_path / name, students[student], changes.get("stream", stream), device=changes.get("device", device))

    return make
