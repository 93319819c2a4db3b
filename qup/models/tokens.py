"""Text to ids and back: the same functions in generation, perplexity and training, so that all see the same tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qup.config.schema import Model
from qup.errors import InputError
from qup.text.templates import ending, find, render

ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end|>",
    "<|end_of_turn|>",
    "<|endofturn|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
)
"""Special tokens that end a turn or a text in one model family or another; those a tokenizer knows end a response."""


def encode_prompt(tokenizer: Any, template: str, question: str) -> list[int]:
    """Ids of the prompt. A chat template writes its own BOS; a plain prompt gets the tokenizer's, where it has one."""
    ids = tokenizer(render(tokenizer, template, question), add_special_tokens=False).input_ids
    if find(template).chat or tokenizer.bos_token_id is None:
        return list(ids)
    leading = tokenizer("").input_ids[:1]
    return [*leading, *ids] if leading == [tokenizer.bos_token_id] else list(ids)


def without_room(
    tokenizer: Any, template: str, problems: Iterable[str], questions: Iterable[str], context: int, least: int
) -> list[tuple[str, int]]:
    """Problems whose prompt leaves fewer than `least` of `context` tokens, each with the tokens it leaves.

    A prompt has no more tokens than bytes, so only the long ones are tokenised.
    """
    around = len(render(tokenizer, template, "").encode()) + 8
    found = []
    for problem, question in zip(problems, questions, strict=True):
        if len(question.encode("utf-8", "surrogatepass")) + around + least > context:
            left = context - len(encode_prompt(tokenizer, template, question))
            if left < least:
                found.append((problem, max(left, 0)))
    return found


def encode_response(tokenizer: Any, text: str, stop_id: int) -> list[int]:
    """Ids of a response: no special tokens added but its stop token at the end."""
    return [*tokenizer(text, add_special_tokens=False).input_ids, stop_id]


def response_ends(tokenizer: Any, text: str) -> list[int]:
    """The character of the response after each token's last one, without the stop token; [] where the tokenizer can't tell."""
    if not getattr(tokenizer, "is_fast", False):
        return []
    return [stop for _, stop in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping]


def question_span(tokenizer: Any, template: str, question: str, prompt_ids: Sequence[int]) -> tuple[int, int]:
    """From which to which of the prompt's tokens the question stands; all after the leading special ones where it isn't found."""
    text = render(tokenizer, template, question)
    words = question.strip()
    start = text.rfind(words)
    if getattr(tokenizer, "is_fast", False) and start >= 0 and words:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        shift = len(prompt_ids) - len(offsets)
        inside = [place for place, (a, b) in enumerate(offsets) if a < start + len(words) and b > start]
        if inside:
            return inside[0] + shift, inside[-1] + 1 + shift
    special = special_ids(tokenizer)
    first = next((place for place, token in enumerate(prompt_ids) if token not in special), len(prompt_ids))
    return first, len(prompt_ids)


def decode_response(tokenizer: Any, token_ids: Sequence[int], stop_ids: Iterable[int]) -> str:
    """Text of sampled ids without the stop token they end in; other special tokens stay visible."""
    ids = list(token_ids)
    if ids and ids[-1] in set(stop_ids):
        ids.pop()
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def train_stop_id(tokenizer: Any, template: str) -> int:
    """The token that ends a response in training: what the chat template ends an assistant's turn with, else EOS.

    It is one of `stop_ids`, so what a model learns to end with also ends its generation.
    """
    special = special_ids(tokenizer) - ({tokenizer.unk_token_id, tokenizer.bos_token_id} - {tokenizer.eos_token_id})
    for token in tokenizer(ending(tokenizer, template), add_special_tokens=False).input_ids:
        if token in special:
            return int(token)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: neither the chat template nor the tokenizer names a token that ends a response")
    return int(tokenizer.eos_token_id)


def stop_ids(tokenizer: Any, model: Model, config: Any, generation_config: Any = None) -> tuple[int, ...]:
    """Every id that ends a response, ascending: of the model's and generation's configuration, the tokenizer, the
    template, the well-known ends this tokenizer has, and `model.stop`.

    Base Qwen checkpoints name `<|endoftext|>` beside a template that ends in `<|im_end|>`: both stop.
    Raises InputError where an entry of `model.stop` is not a single token.
    """
    found = {train_stop_id(tokenizer, model.template), *_eos(config), *_eos(generation_config)}
    if tokenizer.eos_token_id is not None:
        found.add(int(tokenizer.eos_token_id))
    special = special_ids(tokenizer)
    vocabulary = tokenizer.get_vocab()
    found |= {vocabulary[end] for end in ENDS if vocabulary.get(end) in special}
    for text in model.stop:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise InputError(f"model.stop={text!r}: {len(ids)} tokens of this tokenizer; a stop string must be a single token")
        found.add(int(ids[0]))
    return tuple(sorted(found))


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of the tokenizer's special tokens, the ones it was not told the role of included."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _eos(config: Any) -> set[int]:
    found = getattr(config, "eos_token_id", None)
    if found is None and config is not None and hasattr(config, "get_text_config"):
        found = getattr(config.get_text_config(), "eos_token_id", None)
    if found is None:
        return set()
    return {int(found)} if isinstance(found, int) else {int(token) for token in found}
