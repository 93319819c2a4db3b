"""The token pass, windows and projected gradients on a GPU against the same on the CPU."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qup.config.schema import Measure, Model, Perplexity
from qup.config.views import MeasureView, PerplexityView
from qup.scoring.gradients import GradientScorer
from qup.scoring.nll import Encoded, NllScorer, Scored
from qup.scoring.windows import WindowScorer
from tests.helpers.tiny import make_tiny, tiny_model
from tests.scoring import test_gradients, test_nll, test_statistics, test_windows
from tests.stages import test_measure

NUMBERS = ("question_nll", "aa", "aq")
STATISTICS = ("brier", "brier_top", *NUMBERS)


def traces(vocabulary: int, n: int = 40) -> list[Encoded]:
    draw = random.Random(1)
    found = test_nll.traces(n, vocabulary)
    return [replace(trace, question=(draw.randrange(len(trace.prompt_ids)), len(trace.prompt_ids))) for trace in found]


def scored(model: Any, given: list[Encoded]) -> list[Scored]:
    return NllScorer(model, batch_tokens=400, rank_cap=20, top=10, activation="up_proj").score(given)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma2"])
def test_every_figure_of_the_token_pass_equals_the_cpu(device: str, architecture: str) -> None:
    model = tiny_model(architecture)
    given = traces(model.config.vocab_size)
    expected = scored(model, given)
    test_nll.check(model.to(device), given, NllScorer(model, batch_tokens=400, rank_cap=test_nll.CAP))
    for here, there in zip(scored(model, given), expected, strict=True):
        np.testing.assert_allclose(here.nll_T, there.nll_T, rtol=1e-5, atol=1e-5)
        assert here.rank_T.tolist() == there.rank_T.tolist()
        for name in ("brier_T", "brier_top_T"):
            np.testing.assert_allclose(getattr(here, name), getattr(there, name), rtol=1e-5, atol=1e-5)
        assert here.question_tokens == there.question_tokens
        for name in NUMBERS:
            assert getattr(here, name) == pytest.approx(getattr(there, name), rel=1e-5, abs=1e-5, nan_ok=True)


def test_rows_are_packed_on_a_gpu(device: str) -> None:
    scorer = NllScorer(tiny_model().to(device), batch_tokens=4096, rank_cap=5)
    assert (scorer.packs, scorer.splits) == (True, True)
    half = NllScorer(tiny_model().bfloat16().to(device), batch_tokens=4096, rank_cap=5)
    assert (half.packs, half.splits) == (True, True)


def test_bfloat16_drifts_by_a_bounded_amount(device: str) -> None:
    """A twentieth of a nat a token on average, and the total of all tokens by 2 %."""
    model = tiny_model()
    given = traces(model.config.vocab_size)
    expected = np.concatenate([one.nll_T for one in scored(model, given)])
    found = np.concatenate([one.nll_T for one in scored(model.bfloat16().to(device), given)])
    assert np.abs(found - expected).mean() < 0.05
    assert found.sum() == pytest.approx(expected.sum(), rel=0.02)


@pytest.mark.parametrize("window", [0.5, 2], ids=str)
def test_windows_are_scored_as_by_one_pass_each(device: str, window: float) -> None:
    model = tiny_model().to(device)
    scorer = WindowScorer(model, batch_tokens=90)
    assert scorer.masks
    given, firsts = test_windows.given(model.config.vocab_size)
    for trace, first_S, steps in zip(given, firsts, scorer.score(given, firsts, window), strict=True):
        for found, expected in zip(steps, test_windows.plain(model, trace, first_S, window), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_projected_gradients_equal_autograd_and_the_cpu(device: str) -> None:
    model = tiny_model(**test_gradients.SMALL)
    trace = Encoded((3, 4, 5), (6, 7, 8, 9, 2))
    there = GradientScorer(model, dimensions=16, seed=3).gradient(trace)
    scorer = GradientScorer(model.to(device), dimensions=16, seed=3)
    here = scorer.gradient(trace)
    whole = test_gradients.matrix(scorer.projection) @ test_gradients.whole_gradient(model, trace)
    np.testing.assert_allclose(here, whole.cpu(), rtol=1e-5, atol=1e-5 * np.abs(there).max())
    np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5 * np.abs(there).max())


def columns(table: Any, names: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([np.hstack(table[name].to_pylist()).astype(float) for name in names])


def test_the_stages_write_what_they_write_on_the_cpu(device: str, tmp_path: Path) -> None:
    model = Model(path=str(make_tiny(tmp_path / "tiny")), template="tokenizer", device=device)
    found = []
    for place in (device, "cpu"):
        root = tmp_path / f"on-{len(found)}"
        student = replace(model, device=place)
        passed = test_statistics.token_pass(root, PerplexityView(student, Perplexity(brier_top=5)))
        inputs = test_measure.given(root / "measured", test_measure.IDS)
        local = test_measure.run(root, MeasureView(student, Perplexity(), Measure("lalp", window=1)), inputs, "lalp")
        grace = test_measure.run(root, MeasureView(student, Perplexity(), Measure("grace", dimensions=24)), inputs, "grace")
        assert passed.table("traces")["rank_T"].to_pylist()
        found.append(
            (
                columns(passed.table("traces"), ("nll_T", "rank_T")),
                columns(passed.table("statistics"), STATISTICS),
                columns(local.table("measured"), ("value",)),
                np.array([grace.manifest["metrics"]["value"]]),
            )
        )
    for here, there, near in zip(*found, (1e-5, 1e-5, 1e-5, 1e-3), strict=True):
        np.testing.assert_allclose(here, there, rtol=near, atol=1e-5)


@pytest.mark.parametrize("kind", ["token pass", "gradient"])
def test_a_long_trace_over_a_large_vocabulary_takes_a_fraction_of_its_logits(card: torch.device, kind: str) -> None:
    vocabulary, tokens = 151_936, 16_000
    model = tiny_model(vocab_size=vocabulary, hidden_size=64, max_position_embeddings=32_768, pad_token_id=None).to(card, torch.bfloat16)
    draw = random.Random(0)
    trace = Encoded((1, 2, 3), tuple(draw.randrange(vocabulary) for _ in range(tokens)), (1, 3))
    if kind == "gradient":
        scorer = GradientScorer(model, dimensions=64, seed=0)
        compute = lambda: scorer.gradient(trace)  # noqa: E731
    else:
        passing = NllScorer(model, batch_tokens=2048, rank_cap=100, activation="up_proj")
        compute = lambda: passing.score([trace])  # noqa: E731
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    compute()
    assert torch.cuda.max_memory_allocated() - before < tokens * vocabulary * 4 / 3
