"""The lab's tokenizer: one token a word, whole numbers and line ends included.

Words are split at spaces, so text decodes to exactly what was encoded as long as single spaces stand
between words and none beside a line end, which is how everything in the lab is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qup.lab import chains, styles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_LENGTH = 256
"""Positions of a lab student, prompt and response together."""
SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>", "<system>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<assistant> {{ message['content'] }} {{ eos_token }}"
    "{% else %}<{{ message['role'] }}> {{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def _texts() -> Iterator[str]:
    yield from (*chains.SHE, *chains.HE, *chains.ITEMS, "She", "He", "she", "he")
    yield from (*chains.OPENINGS, *chains.SENTENCES, *chains.QUESTIONS)
    for events in chains.EVENTS.values():
        yield from events
    for table in (styles.OPEN, styles.STEP, styles.CLOSE):
        for templates in table.values():
            yield from templates
    yield from (*styles.RETRY, *styles.CHECK, *styles.FILLER, "answer : step", *styles.WORDS, *styles.WORDS.values())


def words(texts: Iterable[str]) -> list[str]:
    """Every word in these templates once, in order of first use; slots are left out."""
    return list(dict.fromkeys(word for text in texts for word in re.sub(r"\{\w+\}", " ", text).split(" ") if word))


def vocabulary() -> list[str]:
    """All tokens; a token's id is its position."""
    return [*SPECIAL, "\n", *(str(value) for value in range(styles.LARGEST + 1)), *words(_texts())]


def build() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template; pad, bos and eos are tokens of their own."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary())}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", behavior="removed"), pre_tokenizers.Split("\n", behavior="isolated")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse(), decoders.Replace(Regex(" ?\n ?"), "\n")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=["<user>", "<assistant>", "<system>"],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save(directory: Path) -> None:
    build().save_pretrained(directory)
