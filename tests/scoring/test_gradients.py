"""GRACE's projected gradients against autograd, the projection written out as a matrix, and a score without any projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qup.measures import grace
from qup.scoring import gradients as module
from qup.scoring.gradients import GradientScorer, Projection
from qup.scoring.nll import Encoded
from tests.helpers.tiny import tiny_model


def matrix(projection):
    """The projection's columns, one for each number it reads."""
    device = projection._order.device
    return torch.stack([projection(iter([unit])) for unit in torch.eye(projection.size, device=device)], 1)


SMALL = {
    "vocab_size": 30,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def whole_gradient(model, trace):
    """Of the mean NLL over the response without its stop token, all parameters in a row, by autograd over full logits."""
    first, ids = len(trace.prompt_ids), torch.tensor([trace.prompt_ids + trace.response_ids[:-1]], device=model.device)
    logprob = model(input_ids=ids).logits[0].log_softmax(-1)
    loss = -sum(logprob[place - 1, ids[0, place]] for place in range(first, ids.shape[1])) / (ids.shape[1] - first)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


def dense_grace(gradients, splits):
    """One gradient a problem; K inverted as it stands."""
    scores, (n, p) = [], gradients.shape
    for split in range(splits):
        test = np.random.default_rng([0, split]).permutation(n)[: n // 10]
        train = np.delete(gradients, test, 0)
        unit = train / np.linalg.norm(train, axis=1, keepdims=True)
        k = unit.T @ unit / len(unit)
        smooth = (1 - 1e-3) * k + 1e-3 * np.trace(k) / p * np.eye(p)
        held = gradients[test]
        scores.append(np.einsum("md,dm->", held, np.linalg.solve(smooth, held.T)) / len(held))
    return np.mean(scores)


def test_a_gradient_is_what_autograd_and_the_matrix_give():
    model = tiny_model(**SMALL)
    scorer = GradientScorer(model, dimensions=16, seed=3)
    trace = Encoded((3, 4, 5), (6, 7, 8, 9, 2))
    found = scorer.gradient(trace)
    np.testing.assert_allclose(found, matrix(scorer.projection) @ whole_gradient(model, trace), rtol=1e-5, atol=1e-7)


def test_the_score_of_a_models_gradients_is_the_dense_ones():
    """With as many sums as parameters the projection only reorders and turns signs: the score is that of whole gradients.

    With fewer it is the score of the gradients times the projection's dense matrix, dimensions × parameters.
    """
    model = tiny_model(**SMALL)
    rng = np.random.default_rng(4)
    traces = [Encoded((3, 4), (*rng.integers(0, 30, int(rng.integers(3, 12))).tolist(), 2)) for _ in range(30)]
    whole = torch.stack([whole_gradient(model, trace) for trace in traces])
    size = whole.shape[1]
    for dimensions in (size, 24):
        scorer = GradientScorer(model, dimensions=dimensions, seed=1)
        found = grace.score(np.array([scorer.gradient(trace) for trace in traces]), np.arange(30), 3)
        dense = whole if dimensions == size else whole @ matrix(scorer.projection).T
        assert found == pytest.approx(dense_grace(dense.numpy().astype(float), 3), rel=1e-4)


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
    small = [Projection(5000, 16, seed) for seed in range(40)]
    assert {one.block for one in small} == {160}
    squares = [float(one(iter([vector])).square().sum()) * 5000 / 16 for one in small]
    assert np.mean(squares) == pytest.approx(float(vector.square().sum()), rel=0.2)


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
