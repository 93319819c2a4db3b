r"""How a question becomes a prompt: instruction and chat template by name.

Where they come from: `qwen_boxed`, `llama_base_boxed` and `deepseek_math` are the prompts of the DFT authors' evaluation
for the three families, `qwen25_math_cot` that of Qwen2.5-Math's own. They differ, so a run records the template's hash,
and arms with different ones are not comparable.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from qup.config.schema import TEMPLATES as NAMES
from qup.errors import InputError
from qup.lab.styles import PREFIX

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
DATE = date(2024, 7, 26)
"""The date that Llama 3's templates fall back to where they are told none."""
_TODAY = re.compile(r"strftime_now\(\s*(?P<quote>['\"])(?P<format>.*?)(?P=quote)\s*\)")
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


def _header(role: str, words: str | None = None) -> str:
    """A turn of Llama 3 under a base checkpoint's only end token; the turn is left open where there are no words."""
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n" + (f"{words}<|end_of_text|>\n" if words else "")


TEMPLATES: dict[str, Template] = {
    "tokenizer": Template(),
    "qwen_boxed": Template(user="{question}\n" + BOXED, system="You are a helpful assistant."),
    "qwen25_math_cot": Template(system=BOXED),
    "llama_base_boxed": Template(
        user=_header("system", "You are a helpful assistant.") + _header("user", "{question}\n" + BOXED) + _header("assistant"), chat=False
    ),
    "deepseek_math": Template(user="User: {question}\n" + BOXED + "\n\nAssistant:", chat=False),
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


def chat_text(tokenizer: Any, conversation: list[dict[str, str]], *, prompt: bool) -> str:
    """A conversation under the tokenizer's chat template; `prompt` opens the assistant's turn.

    Templates that print today's date get DATE: a prompt that changes every day is another prompt every day.
    """
    template = _TODAY.sub(lambda call: repr(DATE.strftime(call["format"])), tokenizer.get_chat_template())
    text = tokenizer.apply_chat_template(conversation, chat_template=template, tokenize=False, add_generation_prompt=prompt)
    assert isinstance(text, str)
    return text


def _chat(tokenizer: Any, template: str, conversation: list[dict[str, str]], *, prompt: bool) -> str:
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        plain = ", ".join(name for name, kind in TEMPLATES.items() if not kind.chat)
        raise InputError(
            f"model.template={template!r}: the tokenizer of {_name(tokenizer)} has no chat template; without one {plain} is valid"
        )
    try:
        return chat_text(tokenizer, conversation, prompt=prompt)
    except TemplateError as error:
        raise InputError(f"model.template={template!r}: the chat template of {_name(tokenizer)} refuses it: {error}") from None


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
