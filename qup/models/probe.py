"""Whether a tokenizer writes what its own files say; tried on a few texts, because libraries have changed it unnoticed.

Seen: all spaces gone from prompts, targets and decoded text (a ByteLevel `tokenizer.json` under a class of another
kind), a pre-tokenizer replaced because of the model's type, BOS dropped or written twice.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from qup.config.schema import Model
from qup.models.load import load_tokenizer, placed, tokenizer_file
from qup.models.tokens import encode_prompt, special_ids, train_stop_id
from qup.text.templates import ending, find

TEXTS = (
    "So a  b, and\tthen c.",
    "First line\n\nx = 1\n  y = 2\n",
    "\\frac{1}{2} + \\sqrt{3} = \\boxed{\\left(0, \\tfrac{7}{10}\\right]}",
    "1234567 and 3.14 and 10^{-3}",
    "naïve – “π ≈ 3” ∑ 数",
)


def faults_as_loaded(model: Model, downloaded: bool) -> list[str]:
    """`tokenizer_faults` of the student's tokenizer as it is loaded here; with `downloaded` the hub is not asked."""
    tokenizer = load_tokenizer(model, downloaded=downloaded)
    return tokenizer_faults(tokenizer, model.template, tokenizer_file(replace(placed(model), downloaded=downloaded), "tokenizer.json"))


def tokenizer_faults(tokenizer: Any, template: str, raw_file: Path | None) -> list[str]:
    """What is wrong with a loaded tokenizer under a prompt template, in words; `raw_file` is its tokenizer.json."""
    return [*_texts(tokenizer, raw_file), *_bos(tokenizer, template), *_stop(tokenizer, template)]


def _texts(tokenizer: Any, raw_file: Path | None) -> list[str]:
    raw = None
    if raw_file is not None:
        from tokenizers import Tokenizer

        raw = Tokenizer.from_file(str(raw_file))
    for text in TEXTS:
        ids = list(tokenizer(text, add_special_tokens=False).input_ids)
        back = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if raw is None:
            # SentencePiece marks the start of a text with a space, which is no loss
            if back.strip(" ") != text.strip(" "):
                return [f"{text!r} comes back as {back!r}: its tokenizer loses characters"]
            continue
        expected = raw.encode(text, add_special_tokens=False).ids
        if ids != expected:
            return [
                f"{text!r} becomes ids {_few(ids)} as loaded, and {_few(expected)} by its tokenizer.json: this version of transformers "
                "reads the tokenizer otherwise than it was made; tokenizer_class in its tokenizer_config.json may say the wrong class"
            ]
        if back != text and raw.decode(expected, skip_special_tokens=False) == text:
            return [f"{text!r} comes back as {back!r}, and whole by its tokenizer.json: this version of transformers decodes it wrongly"]
    return []


def _few(ids: list[int]) -> str:
    return f"[{', '.join(map(str, ids[:6]))}{', …' if len(ids) > 6 else ''}]"


def _bos(tokenizer: Any, template: str) -> list[str]:
    """A prompt begins with BOS once where plain text does, and never twice; where BOS opens every turn it comes again further on."""
    bos = tokenizer.bos_token_id
    if bos is None or bos == tokenizer.eos_token_id:
        return []
    ids = encode_prompt(tokenizer, template, "What is 6 times 7?")
    if ids[:2] == [bos, bos]:
        return [f"template {template}: a prompt begins with {tokenizer.bos_token} twice; once is valid"]
    if ids[:1] != [bos] and not find(template).chat and tokenizer("").input_ids[:1] == [bos]:
        return [f"template {template}: a prompt lacks {tokenizer.bos_token}, which the tokenizer puts before plain text"]
    return []


def _stop(tokenizer: Any, template: str) -> list[str]:
    """A chat template ends a turn with the token that training ends a response with."""
    if not find(template).chat:
        return []
    end = ending(tokenizer, template)
    written = set(tokenizer(end, add_special_tokens=False).input_ids)
    if written & special_ids(tokenizer) and train_stop_id(tokenizer, template) in written:
        return []
    return [
        f"template {template}: the chat template ends an assistant's turn with {end!r}, which holds no special token, so nothing that the "
        "model reads tells it where a response ends; a template that writes its end token, or a template without chat, is valid"
    ]
