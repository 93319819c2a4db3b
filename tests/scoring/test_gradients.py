"""GRACE's projected gradients against autograd and the projection written out as a matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qup.scoring import gradients as module
from qup.scoring.gradients import GradientScorer, Projection
from qup.scoring.nll import Encoded
from tests.helpers.tiny import tiny_model


def matrix(projection):
    """The projection's columns, one for each number it reads."""
    return torch.stack([projection(iter([unit])) for unit in torch.eye(projection.size)], 1)


def test_a_gradient_is_what_autograd_and_the_matrix_give():
    model = tiny_model(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
    scorer = GradientScorer(model, dimensions=16, seed=3)
    trace = Encoded((3, 4, 5), (6, 7, 8, 9, 2))
    found = scorer.gradient(trace)
    model.zero_grad()
    ids = torch.tensor([[3, 4, 5, 6, 7, 8, 9]])
    logprob = model(input_ids=ids).logits[0].log_softmax(-1)
    (-sum(logprob[place - 1, ids[0, place]] for place in range(3, 7)) / 4).backward()
    whole = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    np.testing.assert_allclose(found, matrix(scorer.projection) @ whole, rtol=1e-5, atol=1e-7)


def test_every_number_goes_into_one_sum_with_a_sign():
    found = matrix(Projection(1000, 10, 0))
    assert ((found != 0).sum(0) == 1).all()
    np.testing.assert_allclose(found.abs().max(0).values, (10 / 1000) ** 0.5, rtol=1e-6)
    assert 400 < (found.sum(0) > 0).sum() < 600
    assert (found != 0).sum(1).min() > 60


def test_blocks_do_not_change_what_is_summed(monkeypatch):
    vector = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    whole = Projection(5000, 16, 1)
    parts = whole(iter([vector[:7], vector[7:4000].view(-1, 11), vector[4000:]]))
    torch.testing.assert_close(parts, whole(iter([vector])))
    monkeypatch.setattr(module, "BLOCK", 160)
    small = Projection(5000, 16, 1)
    assert small.block == 160
    assert float(small(iter([vector])).norm()) == pytest.approx(float(whole(iter([vector])).norm()), rel=0.5)


def test_inner_products_are_kept_on_average():
    """Over 400 projections to 32 numbers, of two vectors at a known angle."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(3000, generator=generator)
    second = first + torch.randn(3000, generator=generator)
    scale = 3000 / 32
    products = [float(p(iter([first])) @ p(iter([second]))) * scale for p in (Projection(3000, 32, seed) for seed in range(400))]
    expected = float(first @ second)
    assert np.mean(products) == pytest.approx(expected, abs=4 * np.std(products) / 20)
    assert np.std(products) == pytest.approx(float((first.norm() ** 2 * second.norm() ** 2 + expected**2) / 32) ** 0.5, rel=0.2)


def test_a_trace_without_a_token_has_no_gradient_and_leaves_none_behind():
    model = tiny_model()
    scorer = GradientScorer(model, dimensions=8, seed=0)
    assert np.isnan(scorer.gradient(Encoded((3, 4), (2,)))).all()
    first = scorer.gradient(Encoded((3, 4), (5, 6, 2)))
    assert (scorer.gradient(Encoded((3, 4), (5, 6, 2))) == first).all()
