"""NLL and rank against full logits of the whole vocabulary."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from qup.scoring import nll as module
from qup.scoring.nll import Encoded, NllScorer, token_scores
from tests.helpers.tiny import tiny_model

CAP = 5


def traces(n, vocabulary, seed=0, longest=40):
    rng = random.Random(seed)
    draw = lambda most: tuple(rng.randrange(vocabulary) for _ in range(rng.randrange(1, most)))  # noqa: E731
    return [Encoded(draw(12), draw(longest)) for _ in range(n)]


@torch.inference_mode()
def naive(model, trace):
    """One trace at a time, all logits."""
    ids = torch.tensor([trace.prompt_ids + trace.response_ids], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(trace.prompt_ids) - 1 : -1].float()
    target = torch.tensor(trace.response_ids, device=model.device)
    logprob = torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]
    rank = (logits > logits.gather(1, target[:, None])).sum(1) + 1
    return -logprob.cpu().numpy(), rank.clamp(max=CAP).cpu().numpy()


def check(model, given, scorer, exact=True):
    for trace, scored in zip(given, scorer.score(given), strict=True):
        expected_nll, expected_rank = naive(model, trace)
        assert scored.nll_T.dtype == np.float32
        np.testing.assert_allclose(scored.nll_T, expected_nll, rtol=1e-4, atol=1e-5)
        if exact:
            assert scored.rank_T.tolist() == expected_rank.tolist()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_packed_rows_equal_one_at_a_time(architecture):
    model = tiny_model(architecture)
    given = traces(40, model.config.vocab_size)
    scorer = NllScorer(model, batch_tokens=100, rank_cap=CAP)
    assert (scorer.packs, scorer.splits) == (True, True)
    check(model, given, scorer)


def test_chunks_of_the_head_equal_the_whole(monkeypatch):
    model = tiny_model()
    given = traces(10, model.config.vocab_size)
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 4 * model.config.vocab_size * 3)
    check(model, given, NllScorer(model, batch_tokens=300, rank_cap=CAP))


@pytest.mark.parametrize(("architecture", "changes"), [("gemma2", {"final_logit_softcapping": 2.0}), ("granite", {"logits_scaling": 4.0})])
def test_heads_that_scale_or_cap_their_logits(architecture, changes):
    model = tiny_model(architecture, **changes)
    scorer = NllScorer(model, batch_tokens=200, rank_cap=CAP)
    assert scorer.splits
    check(model, traces(8, model.config.vocab_size), scorer)


def test_learned_positions_are_packed_only_where_that_is_sound():
    model = tiny_model("gpt2", n_positions=256, n_embd=32, n_layer=2, n_head=4)
    check(model, traces(8, model.config.vocab_size), NllScorer(model, batch_tokens=200, rank_cap=CAP))


def test_a_model_whose_head_is_not_what_it_seems_is_called_as_a_whole(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(NllScorer, "_head", lambda self, hidden: 2 * self.model.get_output_embeddings()(hidden))
    scorer = NllScorer(model, batch_tokens=200, rank_cap=CAP)
    assert (scorer.packs, scorer.splits) == (False, False)
    check(model, traces(8, model.config.vocab_size), scorer)


def test_equal_traces_are_computed_once_and_score_the_same(monkeypatch):
    model = tiny_model()
    one, two = traces(2, model.config.vocab_size)
    scorer = NllScorer(model, batch_tokens=100, rank_cap=CAP)
    rows = []
    monkeypatch.setattr(scorer, "_row", lambda batch, known, row=scorer._row: rows.extend(batch) or row(batch, known))
    scored = scorer.score([one, two, one])
    assert len(rows) == 2
    assert (scored[0].nll_T == scored[2].nll_T).all()


def test_a_trace_longer_than_a_row_has_a_row_of_its_own():
    model = tiny_model()
    given = [*traces(3, model.config.vocab_size), Encoded((1, 2), tuple(range(5, 60)))]
    check(model, given, NllScorer(model, batch_tokens=20, rank_cap=CAP))


def test_rank_counts_strictly_higher_logits_and_is_clipped():
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0]]).repeat(4, 1)
    found = token_scores(torch.zeros(4, 1), lambda part: logits[: len(part)].clone(), 4, torch.tensor([0, 1, 2, 3]), 3)
    nll = found.nll_T
    assert found.rank_T.tolist() == [3, 1, 1, 3]
    assert nll[1] == nll[2] < nll[3] < nll[0]


def test_memory_does_not_grow_with_length_times_vocabulary():
    """Peak of the tensors that the head makes, for 400 targets over 50,000 entries: a chunk, not 80 MB."""
    largest = 0

    def head(part):
        nonlocal largest
        largest = max(largest, len(part))
        return torch.zeros(len(part), 50_000)

    token_scores(torch.zeros(400, 4), head, 50_000, torch.zeros(400, dtype=torch.long), CAP)
    assert largest * 50_000 * 4 <= module.CHUNK_BYTES["cpu"]
