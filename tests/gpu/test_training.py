"""Whole training runs on a GPU: from the stream to the model directory, stopped and resumed, in both precisions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from qup.config.schema import Lora, Zero
from qup.errors import Interrupted
from tests.training.world import Workshop, furthest, same

Shop = Callable[..., Workshop]
WHOLE = (Zero(0), Zero(1), Zero(2), Zero(3), Zero(3, True))
HALF = WHOLE[1:]
"""Stage 0 goes with float32 only."""
LOG = logging.getLogger("qup.test")


def wide(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.float() for name, tensor in weights.items()}


@pytest.mark.parametrize("zero", WHOLE, ids=str)
def test_every_zero_stage_learns_what_it_learns_on_the_cpu(shop: Shop, zero: Zero) -> None:
    """The micro-batch is measured on the card; the optimizer is torch's, so that nothing is compiled, with offload too."""
    here, there = shop("here", "tied"), shop("there", "tied", device="cpu")
    metrics = here.train(zero=zero, objective="dft", max_steps=3)
    there.train(zero=zero, objective="dft", max_steps=3)
    assert metrics["micro_batch"] >= 1
    assert furthest(here.weights(), there.weights()) < 1e-4


@pytest.mark.parametrize("zero", HALF, ids=str)
def test_bfloat16_under_float32_masters_learns(shop: Shop, zero: Zero, device: str) -> None:
    plain, half = shop("plain"), shop("half")
    plain.train(epochs=2)
    metrics = half.train(zero=zero, dtype="bfloat16", epochs=2)
    assert metrics["skipped_steps"] == 0
    assert metrics["train_nll_last"] < metrics["train_nll_first"]
    assert furthest(wide(half.weights()), plain.weights()) < 0.02
    steps = [json.loads(line) for line in (half.out / "steps.jsonl").read_text().splitlines()]
    assert all(step["memory"] > 0 for step in steps)
    if device == "cuda":
        assert all(step["memory"] < torch.cuda.get_device_properties(0).total_memory for step in steps)


def test_bfloat16_masters_learn(shop: Shop) -> None:
    work = shop("work")
    metrics = work.train(zero=Zero(1), dtype="bfloat16", master="bfloat16", epochs=4)
    assert metrics["train_nll_last"] < metrics["train_nll_first"]


@pytest.mark.parametrize("zero", WHOLE, ids=str)
def test_stopped_and_resumed_is_as_undisturbed(shop: Shop, zero: Zero) -> None:
    """Bit for bit on the CPU; a GPU's kernels may add in another order, so near to rounding there."""
    stopped_and_resumed(shop, zero=zero)


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "bfloat16"}, {"lora": Lora(4, 8.0, targets=["q_proj", "up_proj"])}, {"dropout": 0.1}],
    ids=["bfloat16", "adapters", "dropout"],
)
def test_half_precision_adapters_and_dropout_stopped_and_resumed(shop: Shop, changes: dict[str, Any]) -> None:
    stopped_and_resumed(shop, zero=Zero(1), **changes)


def stopped_and_resumed(shop: Shop, **settings: Any) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train(**settings)
    with pytest.raises(Interrupted, match="after step 2 of 5"):
        cut.train(stop_at=2, **settings)
    cut.progress.clear()
    cut.train(**settings)
    assert cut.progress[0][0] == 3
    if whole.device == "cpu":
        assert same(cut.weights(), whole.weights())
    else:
        print(f"bit for bit: {same(cut.weights(), whole.weights())}")
        assert furthest(wide(cut.weights()), wide(whole.weights())) < (1e-2 if settings.get("dtype") == "bfloat16" else 1e-4)


@pytest.mark.parametrize("zero", [Zero(1), Zero(3)], ids=str)
@pytest.mark.parametrize("activation_checkpointing", [False, True], ids=["whole", "checkpointed"])
def test_adapters_are_merged(shop: Shop, zero: Zero, activation_checkpointing: bool) -> None:
    from safetensors.torch import load_file

    work = shop("lora")
    lora = Lora(4, 8.0, targets=["q_proj", "up_proj"])
    work.train(zero=zero, max_steps=4, lr=1e-2, dtype="bfloat16", lora=lora, activation_checkpointing=activation_checkpointing)
    before, after = load_file(work.student / "model.safetensors"), work.weights()
    assert before.keys() == after.keys()
    changed = {name.split(".")[-2] for name in before if not before[name].bfloat16().equal(after[name])}
    assert changed == {"q_proj", "up_proj"}


def test_liger_kernels_train_the_same(card: torch.device, liger: None, shop: Shop) -> None:
    plain, fast = shop("plain"), shop("fast")
    plain.train(max_steps=3)
    fast.train(max_steps=3, liger=True)
    assert furthest(fast.weights(), plain.weights()) < 1e-3


def test_a_run_on_the_cpu_stays_there(card: torch.device, shop: Shop) -> None:
    shop("here").train(max_steps=1)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    shop("there", device="cpu").train(max_steps=1)
    assert torch.cuda.max_memory_allocated() == before


def test_the_utilisation_of_a_known_card_is_told(card: torch.device, shop: Shop) -> None:
    from qup.training.metrics import peak_flops

    if peak_flops("cuda:0") is None:
        pytest.skip(f"the peak of {torch.cuda.get_device_name(0)} is not known")
    work = shop("run")
    assert 0 < work.train(max_steps=3)["timings"]["mfu"] < 1
