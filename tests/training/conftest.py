from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.world import Workshop, write_stream

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def warm() -> Iterator[None]:
    """Everything heavy is imported once; ranks are forked from here."""
    from tests.helpers.warm import warm_up

    warm_up()
    yield


@pytest.fixture(scope="session", autouse=True)
def cut(warm: None) -> Iterator[None]:
    """Under ZeRO-3 DeepSpeed keeps small tensors whole and holds on to what it needs again soon, which in a tiny model is everything.

    Here it cuts all matrices, as it does with a large model's, and lets go of them after every use; vectors stay whole.
    """
    from qup.training import engine, loop

    whole = engine.deepspeed_config

    def config(*args: Any, **kwargs: Any) -> dict[str, Any]:
        made = whole(*args, **kwargs)
        if made["zero_optimization"]["stage"] == 3:
            made["zero_optimization"] |= {
                "stage3_param_persistence_threshold": 100,
                "stage3_max_live_parameters": 0,
                "stage3_max_reuse_distance": 0,
            }
        return made

    with pytest.MonkeyPatch.context() as patch:
        for module in (engine, loop):
            patch.setattr(module, "deepspeed_config", config)
        yield


@pytest.fixture(scope="session")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny student directories: untied and tied output layer."""
    from tests.helpers.tiny import make_tiny

    root = tmp_path_factory.mktemp("students")
    return {
        "llama": make_tiny(root / "llama"),
        "tied": make_tiny(root / "tied", tie_word_embeddings=True),
    }


@pytest.fixture(scope="session")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 examples of 9 to 49 tokens."""
    return write_stream(tmp_path_factory.mktemp("stream") / "stream.parquet", 40)


@pytest.fixture
def workshop(tmp_path: Path, students: dict[str, Path], stream: Path) -> Workshop:
    return Workshop(tmp_path, students["llama"], stream)


@pytest.fixture
def shop(tmp_path: Path, students: dict[str, Path], stream: Path) -> Callable[..., Workshop]:
    """A workshop of another name, student or stream."""

    def make(name: str, student: str = "llama", **changes: Any) -> Workshop:
        return Workshop(tmp_path / name, students[student], changes.get("stream", stream))

    return make
