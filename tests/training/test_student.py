"""What becomes of the student before the first step: attention kernel, adapters, Liger kernels."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from typing import Any

import pytest
import torch

from qup.config.schema import Lora, Zero
from qup.errors import InputError
from qup.training import student
from qup.training.student import add_adapters, apply_liger, prepare, probe, use_attention
from tests.helpers.tiny import tiny_model
from tests.training.world import TRAINER

HALF = replace(TRAINER, dtype="bfloat16")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model that takes any attention kernel, though the package be missing here."""
    made = tiny_model()
    monkeypatch.setattr(made, "set_attn_implementation", lambda name: setattr(made.config, "_attn_implementation", name), raising=False)
    return made


def test_flash_attention_is_taken_where_all_that_it_needs_is_there(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert use_attention(model, HALF, cuda=False) == "sdpa"
    monkeypatch.setattr(student, "_flash_ready", lambda: False)
    assert use_attention(model, HALF, cuda=True) == "sdpa"
    monkeypatch.setattr(student, "_flash_ready", lambda: True)
    assert use_attention(model, replace(HALF, dtype="float32"), cuda=True) == "sdpa"
    monkeypatch.setattr(type(model), "_supports_flash_attn", False)
    assert use_attention(model, HALF, cuda=True) == "sdpa"


def test_flash_attention_is_taken(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student, "_flash_ready", lambda: True)
    assert use_attention(model, HALF, cuda=True) == model.config._attn_implementation == "flash_attention_2"


def test_the_kernel_that_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student, "_flash_ready", lambda: True)
    model = tiny_model()
    assert use_attention(model, replace(HALF, attention="eager"), cuda=True) == model.config._attn_implementation == "eager"
    assert use_attention(model, HALF, cuda=True) == "eager", "the model's own, where that is not the default"
    assert use_attention(model, replace(HALF, attention="sdpa"), cuda=True) == "sdpa"


def test_a_kernel_that_can_not_be_had_is_refused() -> None:
    with pytest.raises(InputError, match=r"trainer.attention=flash_attention_2: LlamaForCausalLM can't have it here .*; auto is valid"):
        use_attention(tiny_model(), replace(HALF, attention="flash_attention_2"), cuda=False)


def test_adapters_start_from_the_seed() -> None:
    trainer = replace(TRAINER, lora=Lora(4, 8.0, targets=["q_proj"]))

    def start(seed: int) -> torch.Tensor:
        torch.rand(1)
        made = prepare(tiny_model(), replace(trainer, seed=seed), Zero())
        return torch.cat([p.flatten() for name, p in made.named_parameters() if "lora_A" in name])

    assert torch.equal(start(3), start(3))
    assert not torch.equal(start(3), start(4))


def test_adapters_on_layers_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"trainer.lora.targets=\['wq'\]: LlamaForCausalLM has .*q_proj"):
        add_adapters(tiny_model(), Lora(4, 8.0, targets=["wq"]))
    with pytest.raises(InputError, match="output layer lm_head can't have an adapter"):
        add_adapters(tiny_model(), Lora(4, 8.0, targets=["lm_head"]))


def test_a_model_whose_examples_see_each_other_trains_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare(tiny_model(), TRAINER, Zero())
    hidden = made.hidden
    blind = torch.arange(12)[None]
    monkeypatch.setattr(made, "hidden", lambda ids, positions: hidden(ids, blind))
    monkeypatch.setattr(
        made.causal, "forward", lambda input_ids, **_: types.SimpleNamespace(logits=made.causal.lm_head(hidden(input_ids, blind))[None])
    )
    probe(made, "cpu", packing=False)
    with pytest.raises(InputError, match=r"lets examples of a row see each other; trainer.packing=false is valid"):
        probe(made, "cpu", packing=True)


def test_liger_kernels_need_a_gpu_the_package_and_a_model_they_know(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="need a GPU"):
        apply_liger(tiny_model())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    with pytest.raises(InputError, match="liger-kernel is not installed"):
        apply_liger(tiny_model())
    applied: list[dict[str, Any]] = []
    package, patches = types.ModuleType("liger_kernel.transformers"), types.ModuleType("liger_kernel.transformers.monkey_patch")
    package._apply_liger_kernel_to_instance = lambda **settings: applied.append(settings)  # type: ignore[attr-defined]
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}  # type: ignore[attr-defined]
    for module in (types.ModuleType("liger_kernel"), package, patches):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    model = tiny_model()
    apply_liger(model)
    assert applied == [{"model": model, "cross_entropy": False, "fused_linear_cross_entropy": False}]
    with pytest.raises(InputError, match="no kernels for models of type qwen2"):
        apply_liger(tiny_model("qwen2"))
