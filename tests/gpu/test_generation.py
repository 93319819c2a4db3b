"""Generation on a GPU: the model's own distribution by transformers, whatever runs side by side, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qup.config.schema import Model, Sampling, Vllm
from qup.errors import InputError
from qup.generation import Request, Student, clamp, open_backend, sample
from qup.generation.decoder import GenericDecoder
from qup.generation.llama import LeanDecoder, supports
from qup.generation.memory import check_rows, free_bytes, row_bytes
from tests.generation import test_schedule
from tests.generation.test_schedule import ARCHITECTURES, check_ends, gaps, generate, greedy, requests, settings
from tests.helpers.artifacts import context
from tests.helpers.tiny import make_tiny, tiny_model


@pytest.fixture(scope="module")
def llama(device: str) -> Any:
    return tiny_model("llama").to(device)


@pytest.mark.parametrize("rows", [3, 10], ids=["few rows", "all rows"])
@pytest.mark.parametrize("decoder", [LeanDecoder, GenericDecoder], ids=["lean", "generic"])
def test_greedy_responses_are_those_of_transformers(llama: Any, decoder: type, rows: int) -> None:
    """Eight prompts of 3 to 30 tokens; with three rows they come and go while others are under way."""
    asked = requests(n=1)
    found = generate(llama, asked, settings(n=1, temperature=0.0, rows=rows), decoder)
    for index, request in enumerate(asked):
        assert list(found[index][0].token_ids) == greedy(llama, request.prompt_ids), f"prompt {index}"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_those_of_an_unbatched_forward_pass(device: str, name: str) -> None:
    architecture, changes, lean = ARCHITECTURES[name]
    model = tiny_model(architecture, **changes).to(device)
    assert supports(model) == lean
    asked = requests()
    for decoder in (GenericDecoder, *([LeanDecoder] if lean else [])):
        assert gaps(model, asked, generate(model, asked, settings(), decoder)).max() < 1e-4, decoder


@pytest.mark.parametrize("decoder", [LeanDecoder, GenericDecoder], ids=["lean", "generic"])
def test_half_precision_stays_near_the_models_own_forward_pass(device: str, decoder: type) -> None:
    model = tiny_model("qwen2").bfloat16().to(device)
    asked = requests((5, 17, 9))
    assert gaps(model, asked, generate(model, asked, settings(), decoder)).mean() < 0.05


def test_a_sample_does_not_depend_on_what_runs_beside_it(llama: Any) -> None:
    test_schedule.test_a_sample_does_not_depend_on_what_runs_beside_it(llama)


def test_the_same_settings_give_the_same_responses_and_another_seed_others(llama: Any) -> None:
    test_schedule.test_the_same_settings_give_the_same_bytes_and_another_seed_others(llama)


@pytest.mark.parametrize("filters", [{}, {"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}], ids=str)
def test_a_seed_draws_the_same_tokens_as_on_the_cpu(llama: Any, filters: dict[str, Any]) -> None:
    """Random numbers depend on no device; rounding may tip a token on the edge, and what follows it, once in a while."""
    here = generate(llama, requests(), settings(**filters))
    there = generate(tiny_model("llama"), requests(), settings(**filters))
    pairs = [(ours, theirs) for index in there for ours, theirs in zip(here[index], there[index], strict=True)]
    assert sum(ours.token_ids == theirs.token_ids for ours, theirs in pairs) >= len(pairs) - 1


def test_a_response_ends_at_a_stop_id_or_at_its_limit(llama: Any) -> None:
    check_ends(generate(llama, requests(), settings()))


def test_a_student_draws_on_its_device(device: str, tmp_path: Path) -> None:
    student = Student.open(Model(path=str(make_tiny(tmp_path / "m")), template="tokenizer", device=device), None)
    asked = clamp([student.request(str(p), f"find {p} + 3", 4) for p in range(20)], student.context, 30, 1)
    with open_backend(student, Sampling(n=4, rows=16, max_new_tokens=30, seed=0), context(tmp_path), Vllm()) as backend:
        assert backend.facts["device"] == device
        assert len(dict(backend.generate(asked))) == 20


def test_rows_beyond_the_free_memory_are_refused(card: torch.device) -> None:
    model = tiny_model().to(card)
    free = free_bytes(card)
    assert free is not None and 0 < free <= torch.cuda.get_device_properties(card).total_memory
    many = 10 + 2 * free // row_bytes(model.config, 50, 4)
    asked = clamp([Request("p", tuple(range(7, 17)), many)], 256, 40, 1)
    check_rows(model, asked, 16)
    with pytest.raises(InputError, match=rf"sampling.rows={many}: .* rows fit"):
        check_rows(model, asked, many)


def test_running_out_of_memory_is_an_error_that_names_the_setting(card: torch.device) -> None:
    model = tiny_model().to(card)
    asked = clamp([Request("p", tuple(range(7, 17)), 20_000)], 256, 200, 1)
    total = torch.cuda.get_device_properties(card).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(card) + (64 << 20)) / total, card)
    try:
        with pytest.raises(InputError, match=r"sampling.rows=20000: the GPU's memory does not hold so many sequences"):
            dict(sample(model, asked, settings(n=20_000, rows=20_000, max_new_tokens=200), (2,)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, card)
