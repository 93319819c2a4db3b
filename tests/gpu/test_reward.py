"""Reward models on a GPU against the same on the CPU, for each place that a score may come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qup.config.schema import Reward
from qup.config.views import RewardView
from qup.scoring.formats import FORMATS
from qup.scoring.rewards import RewardModel, load_reward_tokenizer
from tests.helpers.tiny import tiny_model, tiny_tokenizer
from tests.scoring.test_formats import LLAMA3, QUESTION, TRACES, classifier, published, save, with_bos
from tests.stages import test_reward
from tests.stages.test_reward import inputs

__all__ = ["inputs"]


def outcome(folder: Path) -> Reward:
    return replace(classifier(folder)[1], format="skywork_v2", batch_tokens=64)


def first_logit(folder: Path) -> Reward:
    return replace(save(tiny_model(), with_bos(tiny_tokenizer(LLAMA3)), folder), format="nemotron", batch_tokens=100)


@pytest.mark.parametrize("made", [outcome, first_logit, published], ids=["classifier", "causal", "qwen"])
def test_scores_equal_those_of_the_cpu(device: str, tmp_path: Path, made: Callable[[Path], Reward]) -> None:
    reward = replace(made(tmp_path / "rm"), device="cpu")
    tokenizer = load_reward_tokenizer(reward, "r")
    ids = [FORMATS[reward.format].encode(tokenizer, QUESTION, trace) for trace in TRACES]
    expected = RewardModel(reward, "r").score(ids)
    model = RewardModel(replace(reward, device=device), "r")
    assert model.device.type == device
    np.testing.assert_allclose(model.score(ids), expected, rtol=1e-4, atol=1e-4)
    half = RewardModel(replace(reward, device=device, dtype="bfloat16"), "r").score(ids)
    assert np.isfinite(half).all()


def test_the_stage_writes_what_it_writes_on_the_cpu(device: str, tmp_path: Path, inputs: dict) -> None:
    reward = replace(outcome(tmp_path / "rm"), max_length=60, shard_size=4)
    here, there = (
        test_reward.run(tmp_path, RewardView("tiny", replace(reward, device=place)), inputs, name).table("scores")
        for name, place in (("here", device), ("there", "cpu"))
    )
    assert here["fits"].equals(there["fits"]) and here["candidate"].equals(there["candidate"])
    np.testing.assert_allclose(here["score"].to_pylist(), there["score"].to_pylist(), rtol=1e-5, atol=1e-5)
