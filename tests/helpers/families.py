"""Tokenizers in the shapes of the four production families, and tiny models of their architectures around them.

The vocabulary is a byte-level BPE trained here on a few lines; classes, special tokens, BOS rules and templates are
those of the families' own files.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

CHATML = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nPlease reason step by step, and put your final answer within \\\\boxed{}.<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if not (loop.first and m.role == 'system') %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA3 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CORPUS = [
    "How many apples are left? Let x be the number, so x = 12 - 5 = 7. The answer is \\boxed{7}.",
    "We compute $\\frac{1}{2} + \\sqrt{3}$ step by step, and then\n\nput the final answer within \\boxed{}.",
    "Please reason step by step, and put your final answer within \\boxed{}. You are a helpful assistant.",
]


@cache
def _trained() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(_CORPUS * 5, trainer)
    return made.to_str()


def byte_level(special: list[str], bos: str | None = None) -> Any:
    """A byte-level tokenizer with these special tokens; with `bos` its post-processor puts that before every text."""
    from tokenizers import AddedToken, Tokenizer, processors

    made = Tokenizer.from_str(_trained())
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if bos is not None:
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, made.token_to_id(bos))]
        )
    return made


def _write(folder: Path, tokenizer: Any, settings: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def qwen_tokenizer(folder: Path) -> Path:
    """Qwen2.5: no BOS, EOS `<|endoftext|>` beside turns that end in `<|im_end|>`."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    made = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "chat_template": CHATML}
    return _write(folder, made, {**settings, "add_bos_token": False, "bos_token": None})


def llama3_tokenizer(folder: Path, *, base: bool = True) -> Path:
    """Llama 3.2: BOS by post-processor; the instruct template writes it too, and prints the date."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special[0], "eos_token": special[1 if base else 4]}
    return _write(folder, byte_level(special, special[0]), settings if base else {**settings, "chat_template": LLAMA3})


def deepseek_tokenizer(folder: Path) -> Path:
    """DeepSeekMath: byte-level, under the class of Llama's SentencePiece tokenizers, BOS by `add_bos_token`."""
    bos, eos = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    settings = {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": False, "legacy": True, "unk_token": None}
    return _write(folder, byte_level([bos, eos]), {**settings, "bos_token": bos, "eos_token": eos, "pad_token": eos})


ARCHITECTURES = {"qwen": "qwen2", "llama3": "llama", "deepseek": "llama"}
TOKENIZERS = {"qwen": qwen_tokenizer, "llama3": llama3_tokenizer, "deepseek": deepseek_tokenizer}


def tokenizer_of(family: str, folder: Path) -> Path:
    """The tokenizer of a family: qwen, llama3 or deepseek."""
    return TOKENIZERS[family](folder)


def family_model(folder: Path, family: str, *, tied: bool = False) -> Path:
    """A whole repository of a family: its tokenizer and a random two-layer model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    TOKENIZERS[family](folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.for_model(
        ARCHITECTURES[family],
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
