"""Local log-probability: windows against one plain pass a window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qup.measures.lalp import seen
from qup.scoring.nll import Encoded
from qup.scoring.windows import WindowScorer, windows
from tests.helpers.tiny import tiny_model


def given(vocabulary, n=6):
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(0, vocabulary, size).tolist()) for size in (5, 9)]
    traces, firsts = [], []
    for index in range(n):
        length = int(rng.integers(4, 40))
        traces.append(Encoded(prompts[index % 2], tuple(rng.integers(0, vocabulary, length + 1).tolist())))
        firsts.append(np.unique(np.r_[0, rng.integers(0, length, 5)]).astype(np.int32))
    return traces, firsts


@torch.inference_mode()
def plain(model, trace, first_S, window):
    begins = [*first_S.tolist(), len(trace.response_ids) - 1]
    found = []
    for step in range(len(first_S)):
        start, begin, end = begins[step - seen(step, window)], begins[step], begins[step + 1]
        before = trace.prompt_ids + trace.response_ids[start:begin]
        own = trace.response_ids[begin:end]
        logits = model(input_ids=torch.tensor([before + own], device=model.device), use_cache=False).logits[0].double()
        found.append([-float(logits[len(before) - 1 + i].log_softmax(-1)[token]) for i, token in enumerate(own)])
    return found


@pytest.mark.parametrize(("architecture", "masks"), [("llama", True), ("qwen2", True), ("gpt2", True)])
@pytest.mark.parametrize("window", [0.5, 1, 3])
def test_every_step_is_scored_with_its_window_alone(architecture, masks, window):
    model = tiny_model(architecture, **({"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4} if architecture == "gpt2" else {}))
    scorer = WindowScorer(model, batch_tokens=90)
    assert scorer.masks == masks
    traces, firsts = given(model.config.vocab_size)
    for trace, first_S, scored in zip(traces, firsts, scorer.score(traces, firsts, window), strict=True):
        for found, expected in zip(scored, plain(model, trace, first_S, window), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_model_that_takes_no_mask_scores_each_window_by_itself(monkeypatch):
    model = tiny_model()
    with monkeypatch.context() as patch:
        patch.setattr(WindowScorer, "_probe", lambda self: False)
        alone = WindowScorer(model, batch_tokens=90)
    traces, firsts = given(model.config.vocab_size)
    together = WindowScorer(model, batch_tokens=90).score(traces, firsts, 2)
    for one, other in zip(alone.score(traces, firsts, 2), together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_trace_without_a_token_has_no_window_and_one_without_steps_has_one():
    assert windows(0, [], 0, 1) == []
    assert [(one.start, one.begin, one.end) for one in windows(0, [], 7, 1)] == [(0, 0, 7)]


def test_white_space_before_the_first_step_belongs_to_it():
    assert [(one.start, one.begin, one.end) for one in windows(0, [2, 5], 9, 1)] == [(0, 0, 5), (0, 5, 9)]
