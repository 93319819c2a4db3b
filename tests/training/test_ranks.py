from __future__ import annotations

import pytest

from qup.config.schema import Trainer
from qup.training.ranks import Watch, World, _device_rank
from tests.training.world import Workshop


def test_deepspeed_is_told_the_device_we_have() -> None:
    """A scheduler may show each task one GPU, which is number 0 to all of them."""
    assert _device_rank(World(3, 8, 3, "cuda:3")) == 3
    assert _device_rank(World(3, 8, 3, "cuda:0")) == 0
    assert _device_rank(World(3, 8, 3, "cpu")) == 3


def test_a_run_on_the_cpu_stays_there_where_deepspeed_has_found_a_gpu(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.accelerator import real_accelerator
    from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator

    monkeypatch.setattr(real_accelerator, "ds_accelerator", CUDA_Accelerator())
    assert workshop.train(max_steps=1)["steps"] == 1


def test_a_silent_rank_is_noticed_within_a_minute() -> None:
    """At worst a beat was seen an interval after it was sent, and the next look comes an interval after the time is up."""
    watch = Watch(World(0, 2), Trainer().timeout_s, lambda rank: None)
    assert watch.timeout_s + 2 * watch.interval < 57
