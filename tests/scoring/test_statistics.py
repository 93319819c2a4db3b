"""The token pass's statistics against a plain computation over full logits, and what is read of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qup.config.schema import Measure, Model, Perplexity
from qup.config.views import PerplexityView
from qup.errors import InputError
from qup.measures import KINDS
from qup.models import encode_prompt, load_model, load_tokenizer
from qup.records import CANDIDATES, PROBLEMS, STATISTICS
from qup.scoring.nll import Encoded, NllScorer, largest, token_scores
from qup.scoring.statistics import read_statistics
from qup.stages import perplexity
from tests.helpers.artifacts import CANDIDATE, artifact, context, rows, run_sharded
from tests.helpers.tiny import make_tiny, tiny_model

QUESTION = "find 3 + 4 ?"
TEXTS = [
    "so we have 3 + 4 = 7 . the answer is 7",
    "first 3 + 4 = 7 .\nthen total is 7 . the answer is \\boxed{ 7 }",
    "7",
    "the answer is 7 . so 7 ? and 7 . 7",
]
TOP = 5


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    model = Model(path=str(make_tiny(tmp_path_factory.mktemp("tiny"))), template="tokenizer")
    return PerplexityView(model, Perplexity(batch_tokens=120, shard_size=3, brier_top=TOP))


@pytest.fixture(scope="module")
def made(tmp_path_factory, view):
    return token_pass(tmp_path_factory.mktemp("made"), view)


def token_pass(root, view):
    """The stage over TEXTS."""
    problems = [{"problem_id": "p", "question": QUESTION}]
    candidates = [{"problem_id": "p", "candidate": c, "text": text} for c, text in enumerate(TEXTS)]
    inputs = {
        "problems": artifact(root, "problems", problems=rows(PROBLEMS, problems, answer="7", solution="")),
        "traces": artifact(root, "candidates", "x", candidates=rows(CANDIDATES, candidates, **CANDIDATE | {"eligible": True})),
    }
    return run_sharded(perplexity, view, inputs, context(root), "perplexity")


@pytest.fixture(scope="module")
def plain(view):
    """Of every trace, one at a time, in float64 over full logits and all activations."""
    tokenizer, model = load_tokenizer(view.model), load_model(view.model).double()
    prompt = encode_prompt(tokenizer, view.model.template, QUESTION)
    start = next(place for place in range(len(prompt)) if tokenizer.decode(prompt[place:]).replace(" ", "").startswith("find3"))
    own = len(tokenizer(QUESTION, add_special_tokens=False).input_ids)
    kept = []
    model.model.layers[-1].mlp.up_proj.register_forward_hook(lambda *args: kept.append(args[2][0]))
    found = []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        with torch.no_grad():
            probability = model(input_ids=torch.tensor([prompt + ids])).logits[0].softmax(-1)
        unit = torch.nn.functional.normalize(kept.pop(), dim=1)
        sums = {"brier": 0.0, "brier_top": 0.0, "question_nll": 0.0, "question_tokens": own}
        for place, token in enumerate(ids):
            p = probability[len(prompt) + place - 1]
            sums["brier"] += float(sum((p[v] - int(v == token)) ** 2 for v in range(len(p))))
            best = p.topk(TOP)
            share = best.values / best.values.sum()
            sums["brier_top"] += float(sum((q - int(v == token)) ** 2 for q, v in zip(share, best.indices, strict=True)))
            sums["brier_top"] += float(token not in best.indices)
        for place in range(start, start + own):
            sums["question_nll"] -= float(probability[place - 1, prompt[place]].log())
        answer, question = unit[len(prompt) :].mean(0), unit[start : start + own].mean(0)
        found.append(sums | {"aa": float(answer @ answer), "aq": float(answer @ question)})
    return found


@pytest.mark.parametrize("name", ["brier", "brier_top", "question_nll", "question_tokens", "aa", "aq"])
def test_every_statistic_equals_a_plain_computation(made, plain, name):
    table = made.table("statistics")
    assert table.schema.equals(STATISTICS)
    np.testing.assert_allclose(table[name].to_pylist(), [entry[name] for entry in plain], rtol=1e-5)


@pytest.mark.parametrize(
    ("steps", "expected"), [("sentences", [[0, 9], [0, 8, 13], [0], [0, 5, 8, 11]]), ("lines", [[0], [0, 8], [0], [0]])]
)
def test_steps_are_kept_by_the_number_of_their_first_token(made, view, steps, expected):
    tokenizer = load_tokenizer(view.model)
    words = [[tokenizer.decode([token]).strip() for token in row[:-1]] for row in made.table("traces")["token_ids"].to_pylist()]
    found = made.table("statistics")[steps].to_pylist()
    assert [[row[place] for place in starts] for row, starts in zip(words, found, strict=True)] == [
        [row[place] for place in starts] for row, starts in zip(words, expected, strict=True)
    ]
    assert found == expected


@pytest.mark.parametrize("first", [1, 2])
def test_sums_over_first_tokens_equal_a_loop(made, first):
    traces = read_statistics(made, Measure("aslec_drop", first=first))
    nll, starts = made.table("traces")["nll_T"].to_pylist(), made.table("statistics")["sentences"].to_pylist()
    for n, (row, begins) in enumerate(zip(nll, starts, strict=True)):
        chosen = {place for a, b in zip(begins, [*begins[1:], len(row) - 1], strict=True) for place in range(a, min(a + first, b))}
        assert (traces.steps_N[n], traces.first_N[n]) == (len(begins), len(chosen))
        assert traces.first_nll_N[n] == pytest.approx(sum(row[place] for place in chosen))


@pytest.mark.parametrize("kind", [kind for kind, entry in KINDS.items() if entry.needs == "tokens" and kind != "car"])
def test_every_measure_of_the_pass_has_a_number_for_a_whole_trace(made, kind):
    settings = Measure(kind)
    found = KINDS[kind].module.values(read_statistics(made, settings), settings)
    assert np.isfinite(np.delete(found, 2)).all()


def test_a_measure_without_steps_needs_none(made):
    assert np.isnan(read_statistics(made).steps_N).all()


def test_a_student_without_that_module_is_told_what_it_has():
    with pytest.raises(InputError, match=r"perplexity.activation=mlp.up_proj: GPT2LMHeadModel .* has .*mlp.c_fc"):
        NllScorer(tiny_model("gpt2", n_positions=64, n_embd=32, n_layer=2, n_head=4), batch_tokens=64, rank_cap=9, activation="mlp.up_proj")


def test_packing_does_not_mix_the_activations_of_traces():
    model = tiny_model()
    vocabulary = model.config.vocab_size
    rng = np.random.default_rng(0)
    given = [
        Encoded(tuple(rng.integers(0, vocabulary, 6).tolist()), tuple(rng.integers(0, vocabulary, n).tolist()), (1, 5))
        for n in range(2, 20)
    ]
    together = NllScorer(model, batch_tokens=100, rank_cap=9, activation="mlp.up_proj").score(given)
    for trace, scored in zip(given, together, strict=True):
        (alone,) = NllScorer(model, batch_tokens=1, rank_cap=9, activation="mlp.up_proj").score([trace])
        for name in ("aa", "aq", "question_nll"):
            assert getattr(scored, name) == pytest.approx(getattr(alone, name), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("vocabulary", "count"), [(1000, 7), (1000, 40), (70, 3), (30, 50)])
def test_the_largest_by_blocks_are_the_largest(vocabulary, count):
    logits = torch.randn(5, vocabulary, generator=torch.Generator().manual_seed(0))
    assert torch.equal(largest(logits, count), logits.sort(dim=1, descending=True).values[:, :count])


def test_nll_is_to_the_byte_what_version_one_of_the_pass_gave():
    """The order of operations is part of the result: the formula as it stood, on the same chunk."""
    logits = torch.randn(40, 3000, generator=torch.Generator().manual_seed(1))
    target = torch.arange(40) * 7
    found = token_scores(logits, torch.Tensor.clone, 3000, target, 100)
    own = logits.gather(1, target[:, None])
    top = logits.amax(1, keepdim=True)
    expected = (logits - top).exp().sum(1).log() - (own - top).squeeze(1)
    assert torch.equal(found.nll_T, expected)
    assert torch.equal(found.rank_T, ((logits > own).sum(1) + 1).clamp(max=100))
