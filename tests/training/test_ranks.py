from __future__ import annotations

from qup.config.schema import Trainer
from qup.training.ranks import Watch, World, _device_rank


def test_deepspeed_is_told_the_device_we_have() -> None:
    """A scheduler may show each task one GPU, which is number 0 to all of them."""
    assert _device_rank(World(3, 8, 3, "cuda:3")) == 3
    assert _device_rank(World(3, 8, 3, "cuda:0")) == 0
    assert _device_rank(World(3, 8, 3, "cpu")) == 3


def test_a_silent_rank_is_noticed_within_a_minute() -> None:
    """At worst a beat was seen an interval after it was sent, and the next look comes an interval after the time is up."""
    watch = Watch(World(0, 2), Trainer().timeout_s, lambda rank: None)
    assert watch.timeout_s + 2 * watch.interval < 57
