"""Drawing a token: random numbers, filters, log-probabilities."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest
from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from qup.generation.draw import Draw, uniforms
from qup.generation.records import stream_key

VOCABULARY = 40


def logits(rows, seed=0):
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def draws(draw, row, n):
    """n draws from one row of logits, by one stream."""
    key = np.full(n, stream_key(1, "p", 0), np.uint64)
    uniform = torch.from_numpy(uniforms(key, np.arange(n)))
    return draw(row.expand(n, -1), uniform)[0]


def test_a_random_number_depends_on_key_and_position_alone():
    key = np.array([stream_key(1, "p", sample) for sample in range(6)], np.uint64)
    position = np.array([0, 5, 9, 0, 7, 1])
    whole = uniforms(key, position)
    assert [uniforms(key[i : i + 1], position[i : i + 1])[0] for i in range(6)] == whole.tolist()
    assert len({stream_key(1, "p", 0), stream_key(2, "p", 0), stream_key(1, "q", 0), stream_key(1, "p", 1)}) == 4


def test_random_numbers_are_uniform_along_a_stream_and_across_streams():
    along = uniforms(np.full(5000, stream_key(1, "p", 0), np.uint64), np.arange(5000))
    across = uniforms(np.array([stream_key(1, f"p{i}", i % 8) for i in range(5000)], np.uint64), np.zeros(5000, int))
    for values in (along, across):
        assert kstest(values, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05


def test_two_streams_have_nothing_to_do_with_each_other():
    first, second = (uniforms(np.full(4000, stream_key(1, "p", sample), np.uint64), np.arange(4000)) for sample in (0, 1))
    cells = np.histogram2d(first, second, bins=4, range=[[0, 1], [0, 1]])[0]
    assert chisquare(cells.ravel()).pvalue > 0.001


def test_tokens_come_as_often_as_the_softmax_says():
    row = logits(1)
    probability = row[0].double().softmax(-1).numpy()
    count = np.bincount(draws(Draw(), row, 20000).numpy(), minlength=VOCABULARY)
    often = probability > 5e-4
    seen, wanted = np.append(count[often], count[~often].sum()), 20000 * np.append(probability[often], probability[~often].sum())
    assert chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > 0.001


@pytest.mark.parametrize(
    ("draw", "warpers"),
    [
        (Draw(temperature=0.7), []),
        (Draw(top_k=5), [TopKLogitsWarper(5)]),
        (Draw(top_p=0.8), [TopPLogitsWarper(0.8)]),
        (Draw(min_p=0.1), [MinPLogitsWarper(0.1)]),
        (Draw(temperature=1.3, top_k=12, top_p=0.9, min_p=0.05), [TopKLogitsWarper(12), TopPLogitsWarper(0.9), MinPLogitsWarper(0.05)]),
    ],
)
def test_filters_keep_what_those_of_transformers_keep(draw, warpers):
    row = logits(1, seed=3)
    scores = row / draw.temperature
    for warper in warpers:
        scores = warper(None, scores)
    probability = scores[0].double().softmax(-1).numpy()
    count = np.bincount(draws(draw, row, 20000).numpy(), minlength=VOCABULARY)
    assert (count[probability == 0] == 0).all()
    assert np.abs(count / 20000 - probability).max() < 0.015


@pytest.mark.parametrize("draw", [Draw(), Draw(temperature=0.7), Draw(top_p=0.8, top_k=5), Draw(temperature=0)])
def test_rows_drawn_in_groups_are_those_drawn_together(draw, monkeypatch):
    wide, uniform = logits(7), torch.linspace(0, 0.99, 7, dtype=torch.float64)
    together = draw(wide, uniform)
    monkeypatch.setattr("qup.generation.draw.AT_ONCE", {"cpu": 3 * VOCABULARY})
    assert all(torch.equal(one, other) for one, other in zip(together, draw(wide, uniform), strict=True))


def test_top_p_always_keeps_the_likeliest():
    row = logits(1)
    assert set(draws(Draw(top_p=1e-9), row, 50).tolist()) == {int(row.argmax())}


@pytest.mark.parametrize("draw", [Draw(), Draw(temperature=0.5), Draw(top_p=0.5), Draw(temperature=0)])
def test_the_log_probability_is_the_models_own_whatever_the_settings(draw):
    rows = logits(30)
    uniform = torch.rand(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    token, logprob = draw(rows, uniform)
    assert torch.allclose(logprob, rows.log_softmax(-1)[torch.arange(30), token], atol=1e-6)
    assert logprob.dtype == torch.float32


def test_the_ends_of_the_unit_interval_pick_tokens_that_can_be():
    rows = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]]).repeat(2, 1)
    token, _ = Draw()(rows, torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64))
    assert token.tolist() == [1, 2]
    token, _ = Draw(top_p=0.99)(rows, torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64))
    assert token.tolist() == [2, 1]


def test_greedy_takes_the_likeliest():
    rows = logits(10)
    assert Draw(temperature=0)(rows, torch.zeros(10, dtype=torch.float64))[0].tolist() == rows.argmax(-1).tolist()


def test_half_precision_logits_are_read_in_single():
    rows = logits(10).bfloat16()
    token, logprob = Draw(temperature=0)(rows, torch.zeros(10, dtype=torch.float64))
    assert torch.allclose(logprob, rows.float().log_softmax(-1)[torch.arange(10), token], atol=1e-6)
