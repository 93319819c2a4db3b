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
from qup.training import attention
from qup.training.attention import TORCH_VARLEN, attend, plain, tell_borders, use_attention
from qup.training.batches import Tensors
from qup.training.student import add_adapters, apply_liger, prepare, probe
from tests.helpers.tiny import tiny_model
from tests.training.world import TRAINER

HALF = replace(TRAINER, dtype="bfloat16")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model that takes any attention kernel, though the package be missing here."""
    made = tiny_model()
    monkeypatch.setattr(made, "set_attn_implementation", lambda name: setattr(made.config, "_attn_implementation", name), raising=False)
    return made


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that has the kernels of variable length."""
    monkeypatch.setattr(attention, "_ampere", lambda: True)


def test_on_a_gpu_the_fastest_kernel_is_taken_that_the_model_and_the_packages_have(
    model: Any, ampere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert use_attention(model, HALF, cuda=False) == "sdpa"
    monkeypatch.setattr(attention, "_flash_installed", lambda: False)
    assert use_attention(model, replace(HALF, dtype="float32"), cuda=True) == "sdpa"
    assert use_attention(model, replace(HALF, dropout=0.1), cuda=True) == "sdpa"
    with monkeypatch.context() as changed:
        changed.setattr(type(model), "_supports_flash_attn", False)
        assert use_attention(model, HALF, cuda=True) == "sdpa"
    assert use_attention(model, HALF, cuda=True) == model.config._attn_implementation == TORCH_VARLEN
    model.config._attn_implementation = "sdpa"
    monkeypatch.setattr(attention, "_flash_installed", lambda: True)
    assert use_attention(model, HALF, cuda=True) == model.config._attn_implementation == "flash_attention_2"


def test_an_older_gpu_keeps_the_models_kernel(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_ampere", lambda: False)
    assert use_attention(model, HALF, cuda=True) == "sdpa"


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 16},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"attn_logit_softcapping": 50.0},
        {"head_dim": 12},
        {"v_head_dim": 16},
    ],
    ids=str,
)
def test_a_model_whose_attention_has_windows_or_caps_is_not_given_torchs_kernel(changes: dict[str, Any], ampere: None) -> None:
    made = tiny_model()
    assert plain(made)
    for name, value in changes.items():
        setattr(made.config, name, value)
    assert not plain(made)
    with pytest.raises(InputError, match=r"trainer.attention=torch_varlen: LlamaForCausalLM has windows, caps or sinks"):
        use_attention(made, replace(HALF, attention=TORCH_VARLEN), cuda=True)


def test_a_setting_that_differs_from_layer_to_layer_is_no_plain_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uneven(types.SimpleNamespace):
        @property
        def head_dim(self) -> int:
            raise RuntimeError("'head_dim' is a per-layer attribute")

    made = tiny_model()
    monkeypatch.setattr(made.config, "get_text_config", lambda: Uneven(hidden_size=64, num_attention_heads=4), raising=False)
    assert not plain(made)


@pytest.mark.parametrize("kind", ["llama", "stablelm", "nemotron"])
def test_torchs_kernel_is_told_the_borders_and_gives_what_sdpa_gives(kind: str, ampere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself needs a GPU (tests/gpu); here a plain one stands in its place, called as transformers' models call it.

    StableLM and Nemotron hand nothing of what they are told down to their attention.
    """
    from torch.nn import functional
    from torch.nn.attention import varlen

    def stretches(query: Any, key: Any, value: Any, borders: Any, borders_k: Any, longest: int, *_: Any, **how: Any) -> Any:
        assert how["window_size"] == (-1, 0) and borders.equal(borders_k) and longest == int(borders.diff().max())
        parts = []
        for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            q, k, v = (tensor[start:stop].transpose(0, 1) for tensor in (query, key, value))
            parts.append(functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=how["scale"], enable_gqa=how["enable_gqa"]))
        return torch.cat(parts, 1).transpose(0, 1)

    monkeypatch.setattr(varlen, "varlen_attn", stretches)
    from transformers import AutoConfig, AutoModelForCausalLM

    monkeypatch.setattr(attention, "_flash_installed", lambda: False)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=20, **sizes, pad_token_id=0)).eval()
    trained = prepare(made, TRAINER, Zero(0)).eval()
    ids = torch.arange(14)[None] % 7
    positions = torch.cat([torch.arange(5), torch.arange(9)])[None]
    expected = trained.hidden(ids, positions)
    assert use_attention(made, HALF, cuda=True) == TORCH_VARLEN
    borders = torch.tensor([0, 5, 14], dtype=torch.int32)
    found = trained.hidden(ids, positions, **Tensors(ids, positions, ids, ids, borders=borders, longest=9).stretches)
    torch.testing.assert_close(found, expected)
    probe(trained, "cpu")
    tell_borders({})
    with pytest.raises(ValueError, match="borders"):
        attend(made, *(torch.zeros(1, 4, 3, 8) for _ in range(3)), None)


def test_a_model_that_keeps_its_kernel_whatever_is_asked_for_is_refused(ampere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny_model()
    monkeypatch.setattr(made, "set_attn_implementation", lambda name: None, raising=False)
    with pytest.raises(InputError, match=r"trainer.attention=torch_varlen: LlamaForCausalLM keeps sdpa, whatever is asked for"):
        use_attention(made, replace(HALF, attention=TORCH_VARLEN), cuda=True)


def test_the_kernel_that_was_asked_for_is_taken(ampere: None) -> None:
    model = tiny_model()
    assert use_attention(model, replace(HALF, attention="eager"), cuda=True) == model.config._attn_implementation == "eager"
    assert use_attention(model, HALF, cuda=True) == "eager", "the model's own, where that is not the default"
    assert use_attention(model, replace(HALF, attention="sdpa"), cuda=True) == "sdpa"


def test_a_kernel_that_can_not_be_had_is_refused() -> None:
    with pytest.raises(InputError, match=r"trainer.attention=flash_attention_2: LlamaForCausalLM can't have it here .*; auto is valid"):
        use_attention(tiny_model(), replace(HALF, attention="flash_attention_2"), cuda=False)
    with pytest.raises(InputError, match=r"trainer.attention=torch_varlen: needs a GPU of NVIDIA's Ampere generation"):
        use_attention(tiny_model(), replace(HALF, attention=TORCH_VARLEN), cuda=False)


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
