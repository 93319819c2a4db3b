from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from qup.config.schema import Zero
from qup.errors import InputError
from qup.training.batches import Layouter, MicroBatch, collate, lay_out, tensors_of
from qup.training.examples import Example
from qup.training.student import prepare, probe
from tests.helpers.tiny import tiny_model
from tests.training.world import TRAINER


def examples(lengths: list[int], seed: int = 0) -> list[Example]:
    draw = np.random.default_rng(seed)
    return [Example(i, f"p{i}", draw.integers(3, 60, n).astype(np.int32), 3, False) for i, n in enumerate(lengths)]


def trained(architecture: str = "llama") -> Any:
    model = prepare(tiny_model(architecture), TRAINER, Zero())
    return model.eval()


def test_targets_are_response_tokens_seen_from_the_position_before() -> None:
    batch = examples([6, 5])
    tensors = collate(batch, MicroBatch(((0, 1),), 16), fill=0)
    assert tensors.target_N.tolist() == [*batch[0].ids[3:], *batch[1].ids[3:]]
    assert tensors.source_N.tolist() == [2, 3, 4, 8, 9]
    assert tensors.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_no_target_is_predicted_across_a_border() -> None:
    batch = [replace(example, n_prompt=0) for example in examples([6, 5])]
    tensors = collate(batch, MicroBatch(((0, 1),), 16), fill=0)
    starts = (tensors.position_ids.flatten() == 0).nonzero().flatten()
    assert not set((tensors.source_N + 1).tolist()) & set(starts.tolist())
    assert len(tensors.target_N) == sum(example.n_targets for example in batch) == 9


def test_a_pad_token_that_is_also_the_stop_token_stays_a_target() -> None:
    batch = examples([6])
    batch[0].ids[-1] = 2
    assert collate(batch, MicroBatch(((0,),), 8), fill=2).target_N.tolist() == batch[0].ids[3:].tolist()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_packed_example_does_not_see_its_neighbours(architecture: str) -> None:
    """Perturbing one example of a row leaves the hidden states of the others as they were, bit for bit."""
    model = trained(architecture)
    batch = examples([9, 7, 8])
    part = MicroBatch(((0, 1, 2),), 32)
    before = collate(batch, part, fill=0)
    changed = [*batch]
    changed[1] = replace(batch[1], ids=batch[1].ids[::-1].copy())
    after = collate(changed, part, fill=0)
    with torch.no_grad():
        one, two = (model.hidden(tensors.input_ids, tensors.position_ids) for tensors in (before, after))
    assert torch.equal(one[:9], two[:9]) and torch.equal(one[16:24], two[16:24])
    assert not torch.allclose(one[9:16], two[9:16])


def test_a_packed_example_is_as_if_alone() -> None:
    model = trained()
    batch = examples([9, 7, 8])
    packed = collate(batch, MicroBatch(((2, 0, 1),), 32), fill=0)
    with torch.no_grad():
        together = model.hidden(packed.input_ids, packed.position_ids)
        for i, start in ((2, 0), (0, 8), (1, 17)):
            alone = collate(batch, MicroBatch(((i,),), batch[i].length), fill=0)
            hidden = model.hidden(alone.input_ids, alone.position_ids)
            assert torch.allclose(together[start : start + batch[i].length], hidden, atol=1e-5)


def test_rows_behind_each_other_are_the_rows() -> None:
    batch = examples([9, 7, 8])
    part = MicroBatch(((0, 1), (2,)), 24)
    apart, flat = collate(batch, part, 0), collate(batch, part, 0, flat=True)
    assert flat.input_ids.shape == (1, 48)
    assert torch.equal(apart.input_ids.flatten(), flat.input_ids.flatten())
    assert torch.equal(apart.source_N, flat.source_N)
    assert apart.borders is None and apart.stretches == {}
    assert flat.borders is not None and flat.borders.tolist() == [0, 9, 16, 24, 32, 48] and flat.borders.dtype == torch.int32
    assert flat.stretches["max_length_q"] == 16
    assert torch.equal(flat.position_ids.flatten() == 0, torch.isin(torch.arange(48), flat.borders))


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_every_rank_takes_equally_many_turns_and_every_target_is_taken_once(packing: bool, in_order: bool, world_size: int) -> None:
    batch = examples([9, 7, 8, 20, 12, 30, 5])
    step = lay_out(batch, Layouter(world_size, 2, packing, 64, in_order=in_order))
    assert {len(turn) for turn in step.micro_batches} == {world_size}
    counted = 0
    for rank in range(world_size):
        counted += sum(len(tensors.target_N) for tensors in tensors_of(batch, step, rank, 0))
    assert counted == step.n_targets == sum(example.n_targets for example in batch)
    assert step.n_computed >= step.n_tokens


def test_means_of_means_keep_the_order_of_the_data() -> None:
    """As a distributed sampler deals: rank r gets examples r, r + W, …"""
    batch = examples([5, 30, 6, 29, 7, 28, 8, 27])
    step = lay_out(batch, Layouter(2, 2, False, 64, in_order=True))
    assert [[part.rows for part in turn] for turn in step.micro_batches] == [
        [((0,), (2,)), ((1,), (3,))],
        [((4,), (6,)), ((5,), (7,))],
    ]


def test_the_probe_lets_a_sound_model_pass() -> None:
    probe(trained(), "cpu")


def test_the_probe_refuses_a_model_that_scales_its_logits() -> None:
    model = trained("cohere")
    with pytest.raises(InputError, match="its logits are not its output layer's"):
        probe(model, "cpu")


def test_the_probe_refuses_a_model_whose_examples_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, positions: hidden(ids, torch.arange(ids.shape[1])[None]))
    monkeypatch.setattr("qup.training.student._close", lambda a, b, close=[True, False]: close.pop(0))
    with pytest.raises(InputError, match="lets examples of a row see each other"):
        probe(model, "cpu")
