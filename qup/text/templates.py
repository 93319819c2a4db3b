r"""How a question becomes a prompt: instruction and chat template by name.

Where they come from: `qwen_boxed` is the prompt of the DFT authors' evaluation, `qwen25_math_cot` that of
Qwen2.5-Math's own. They differ, so a run records the template's hash, and arms with different ones are not comparable.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from qup.config.schema import TEMPLATES as NAMES
from qup.errors import InputError
from qup.lab.styles import PREFIX

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
_QUESTION, _RESPONSE = "What is 6 times 7?", "Six times seven is 42."


@dataclass(frozen=True)
class Template:
    """An instruction around a question; `{question}` stands for it in `user`."""

    user: str = "{question}"
    system: str | None = None
    chat: bool = True
    """Whether the tokenizer's chat template is put around it; else the text stands alone, as base models read it."""
    prefix: str = ""
    """First words of the response, put before it."""


TEMPLATES: dict[str, Template] = {
    "tokenizer": Template(),
    "qwen_boxed": Template(user="{question}\n" + BOXED, system="You are a helpful assistant."),
    "qwen25_math_cot": Template(system=BOXED),
    "plain_boxed": Template(user="{question}\n" + BOXED + "\n", chat=False),
    "final_answer": Template(
        user='{question}\nThink step by step in a few short sentences. End with "The answer is N.", where N is a number.'
    ),
    "lab": Template(),
    "lab_sequential": Template(prefix=f" {PREFIX['sequential']}"),
    "lab_symbolic": Template(prefix=f" {PREFIX['symbolic']}"),
}


def find(name: str) -> Template:
    """The template of that name; InputError lists the names there are."""
    try:
        return TEMPLATES[name]
    except KeyError:
        raise InputError(f"model.template={name!r}: valid are {', '.join(NAMES)}") from None


def messages(template: str, question: str) -> list[dict[str, str]]:
    """The conversation up to the question, as chat endpoints take it."""
    kind = find(template)
    system = [{"role": "system", "content": kind.system}] if kind.system is not None else []
    return [*system, {"role": "user", "content": kind.user.replace("{question}", question)}]


def render(tokenizer: Any, template: str, question: str) -> str:
    """The prompt's text, up to where the response begins. InputError where the tokenizer has no chat template."""
    kind = find(template)
    conversation = messages(template, question)
    text = _chat(tokenizer, template, conversation, prompt=True) if kind.chat else conversation[-1]["content"]
    return text + kind.prefix


def ending(tokenizer: Any, template: str) -> str:
    """What the chat template writes after an assistant's turn, "" without one.

    Raises InputError where it leaves the assistant's text out.
    """
    if not find(template).chat:
        return ""
    conversation = [*messages(template, _QUESTION), {"role": "assistant", "content": _RESPONSE}]
    _, found, rest = _chat(tokenizer, template, conversation, prompt=False).rpartition(_RESPONSE)
    if not found:
        raise InputError(
            f"model.template={template!r}: the chat template of {_name(tokenizer)} leaves the assistant's part out; "
            "one that renders role `assistant` is needed"
        )
    return rest


def template_hash(tokenizer: Any, template: str) -> str:
    """sha256 over a rendered probe with its instruction and ending: equal hashes, equal prompts."""
    parts = [template, render(tokenizer, template, _QUESTION), ending(tokenizer, template)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def messages_hash(template: str) -> str:
    """As template_hash where an endpoint applies a chat template of its own, which is not known here."""
    return hashlib.sha256(json.dumps(["endpoint", template, messages(template, _QUESTION)]).encode()).hexdigest()


def _chat(tokenizer: Any, template: str, conversation: list[dict[str, str]], *, prompt: bool) -> str:
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        plain = ", ".join(name for name, kind in TEMPLATES.items() if not kind.chat)
        raise InputError(
            f"model.template={template!r}: the tokenizer of {_name(tokenizer)} has no chat template; without one {plain} is valid"
        )
    try:
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=prompt)
    except TemplateError as error:
        raise InputError(f"model.template={template!r}: the chat template of {_name(tokenizer)} refuses it: {error}") from None
    assert isinstance(text, str)
    return text


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
