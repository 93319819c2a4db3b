"""A real vLLM: `make test-vllm` installs it and runs these; elsewhere they are skipped."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qup.config.schema import Vllm
from tests.helpers.tiny import make_tiny

WHERE = "QUP_TEST_VLLM"
SIZES = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
"""vLLM's attention on CPUs knows no smaller heads."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(900))
            if not os.environ.get(WHERE):
                item.add_marker(pytest.mark.skip(reason=f"{WHERE} names no environment with vLLM; make test-vllm"))


@pytest.fixture(scope="session")
def vllm() -> Vllm:
    """Small and without compilation. The CPU build can't seed requests in a chunked prefill."""
    args = {"enforce-eager": True, "enable-chunked-prefill": False, "max-num-batched-tokens": 16384, "gpu-memory-utilization": 0.05}
    setup = ["export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind"]
    return Vllm(command=os.environ[WHERE], args=args, setup=setup, start_s=600, stall_s=20)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student, its weights small enough that its distribution is broad."""
    torch.set_num_threads(1)
    return make_tiny(tmp_path_factory.mktemp("model"), **SIZES)


@pytest.fixture
def workers() -> Callable[[int], dict[str, int]]:
    """The processes below one, by the name that vLLM gives them."""

    def found(parent: int) -> dict[str, int]:
        names, parents = {}, {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                stat = (path / "stat").read_text()
                name = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue
            parents[int(path.name)] = int(stat.rpartition(")")[2].split()[1])
            names[int(path.name)] = name
        below = {parent}
        while more := {pid for pid, above in parents.items() if above in below} - below:
            below |= more
        return {names[pid]: pid for pid in below - {parent}}

    return found
