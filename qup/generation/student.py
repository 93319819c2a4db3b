"""Everything about a student that generation needs and its weights do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qup.config.schema import Model, Sampling
from qup.errors import InputError
from qup.generation.records import Request, Sample
from qup.models import (
    context_length,
    decode_response,
    encode_prompt,
    load_configs,
    load_tokenizer,
    no_room,
    stop_ids,
    train_stop_id,
    without_room,
)
from qup.models.load import placed, tokenizer_file
from qup.models.probe import tokenizer_faults
from qup.text.templates import messages, messages_hash, template_hash


@dataclass(frozen=True)
class Student:
    """A student by its tokenizer: how questions become prompts and ids become text."""

    model: Model
    directory: Path | None
    """An artifact's directory; None where `model.path` says."""
    tokenizer: Any
    stop_ids: tuple[int, ...]
    train_stop_id: int
    context: int

    @classmethod
    def open(cls, model: Model, directory: Path | None) -> Student:
        """Loads tokenizer and configuration. Raises InputError where they don't fit each other or the template."""
        tokenizer = load_tokenizer(model, directory)
        config, generation = load_configs(model, directory)
        size = getattr(config.get_text_config(), "vocab_size", None)
        if size is not None and len(tokenizer) and (largest := max(tokenizer.get_vocab().values())) >= size:
            raise InputError(
                f"model.path={directory or model.path}: a tokenizer of another family: its ids go up to {largest}, the model embeds {size}"
            )
        if wrong := tokenizer_faults(tokenizer, model.template, tokenizer_file(placed(model, directory), "tokenizer.json")):
            raise InputError(f"model.path={directory or model.path}: " + "; ".join(wrong))
        stops = tuple(token for token in stop_ids(tokenizer, model, config, generation) if size is None or token < size)
        return cls(model, directory, tokenizer, stops, train_stop_id(tokenizer, model.template), context_length(model, config))

    def request(self, problem: str, question: str, n: int) -> Request:
        """`n` responses to a question; `problem` names it."""
        template = self.model.template
        return Request(problem, tuple(encode_prompt(self.tokenizer, template, question)), n, tuple(messages(template, question)))

    def text(self, sample: Sample) -> str:
        """A response's text without its stop token."""
        return decode_response(self.tokenizer, sample.token_ids, self.stop_ids) if sample.text is None else sample.text

    def facts(self, sampling: Sampling) -> dict[str, Any]:
        """What makes two sets of responses comparable, for the manifest."""
        foreign = sampling.backend == "openai"
        return {
            "template": self.model.template,
            "template_hash": messages_hash(self.model.template) if foreign else template_hash(self.tokenizer, self.model.template),
            "stop_ids": list(self.stop_ids),
            "stop_tokens": self.tokenizer.convert_ids_to_tokens(list(self.stop_ids)),
            "context": self.context,
        }

    def without_room(self, problems: Sequence[str], questions: Sequence[str], least: int) -> list[tuple[str, int]]:
        """The problems whose prompt leaves fewer than `least` tokens of the context, each with the tokens it leaves."""
        return without_room(self.tokenizer, self.model.template, problems, questions, self.context, least)

    def check_prompts(self, problems: Sequence[str], questions: Sequence[str], least: int) -> None:
        """Raises InputError listing the problems whose prompt leaves fewer than `least` tokens of the context."""
        if bad := self.without_room(problems, questions, least):
            raise InputError(no_room(bad, self.context, f"sampling.min_new_tokens={least}"))
