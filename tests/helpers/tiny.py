"""A tiny random language model on disk, with a word-level tokenizer and a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [
    *[str(number) for number in range(51)],
    *[
        "+",
        "-",
        "*",
        "/",
        "=",
        "(",
        ")",
        ".",
        ",",
        ":",
        "?",
        "so",
        "the",
        "answer",
        "is",
        "final",
        "we",
        "have",
        "get",
        "then",
        "find",
        "of",
        "and",
        "a",
        "to",
        "in",
        "step",
        "first",
        "next",
        "total",
        "left",
        "buys",
        "gives",
    ],
    *["\n", "\\boxed{", "}"],
]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer(chat_template: str | None = CHAT_TEMPLATE) -> Any:
    """Words and numbers are single tokens; spaces between them are not kept as tokens and come back on decoding."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\\boxed\{|[0-9]+|[A-Za-z]+|\n|[^\sA-Za-z0-9]"), "isolated"),
            pre_tokenizers.Split(Regex(r"[ \t]+"), "removed"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|end|>"],
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def tiny_config(architecture: str = "llama", **changes: Any) -> Any:
    """A two-layer configuration; `architecture` is llama, qwen2, qwen3, mistral or any model_type of transformers."""
    from transformers import AutoConfig

    settings: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + len(dict.fromkeys(WORDS)),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        **changes,
    }
    return AutoConfig.for_model(architecture, **settings)


def tiny_model(architecture: str = "llama", *, seed: int = 0, scale: float = 0.3, **changes: Any) -> Any:
    """A random causal model in fp32, evaluation mode; `scale` is the deviation of its weights (large: peaked distributions)."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_config(tiny_config(architecture, **changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def make_tiny(
    directory: Path, architecture: str = "llama", *, seed: int = 0, chat_template: str | None = CHAT_TEMPLATE, **changes: Any
) -> Path:
    """Saves model and tokenizer into `directory` and returns it."""
    model = tiny_model(architecture, seed=seed, **changes)
    model.save_pretrained(directory)
    tiny_tokenizer(chat_template).save_pretrained(directory)
    return directory


def break_weights(directory: Path) -> None:
    """Puts a NaN into a saved model, so that no number that it gives is finite."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
