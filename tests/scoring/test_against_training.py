"""The same examples cost the same in training: stop token included, fp32, no dropout."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from qup.config.schema import Trainer, Zero
from qup.models import encode_prompt, encode_response, train_stop_id
from qup.scoring.nll import Encoded, NllScorer
from qup.training.batches import Layouter, lay_out, tensors_of
from qup.training.examples import batches_of, encode_stream
from qup.training.student import prepare
from tests.helpers.tiny import tiny_model, tiny_tokenizer

TEMPLATE = "tokenizer"


@pytest.mark.parametrize("packing", [True, False])
def test_the_first_steps_nll_is_the_scorers(packing):
    tokenizer = tiny_tokenizer()
    stop_id = train_stop_id(tokenizer, TEMPLATE)
    stream = pa.table(
        {
            "problem_id": [f"p{index}" for index in range(9)],
            "question": [f"find {index} + 2 ?" for index in range(9)],
            "text": ["so we have " + "then " * index + f"\\boxed{{{index + 2}}}" for index in range(9)],
        }
    )
    examples = encode_stream(
        stream, lambda text: encode_prompt(tokenizer, TEMPLATE, text), lambda text: encode_response(tokenizer, text, stop_id), 256, 0.0
    )
    encoded = [Encoded(tuple(e.ids[: e.n_prompt].tolist()), tuple(e.ids[e.n_prompt :].tolist())) for e in examples.kept]
    scored = NllScorer(tiny_model(), batch_tokens=64, rank_cap=100).score(encoded)
    expected = sum(float(trace.nll_T.sum()) for trace in scored)
    tokens = sum(len(trace.nll_T) for trace in scored)

    (batch,) = batches_of(examples, 9, 1, 0, False, None)
    step = lay_out(batch, Layouter(1, 4, packing, 64))
    student = prepare(tiny_model(), Trainer(), Zero())
    with torch.no_grad():
        sums = [student(tensors) for tensors in tensors_of(batch, step, 0, 0)]
    assert sum(float(part.tokens) for part in sums) == tokens == step.n_targets
    assert sum(float(part.nll) for part in sums) / tokens == pytest.approx(expected / tokens, rel=1e-5)
