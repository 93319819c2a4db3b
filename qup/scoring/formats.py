"""How each reward model reads a problem and a trace, token by token.

Sources: the model cards of Qwen/Qwen2.5-Math-RM-72B, Skywork/Skywork-Reward-V2 and nvidia/Llama-3.1-Nemotron-70B-Reward-HF.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qup.text.templates import chat_text

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."

Ids = list[int]


@dataclass(frozen=True)
class Format:
    """`encode` gives what the model is fed; `kind` says where its score comes out."""

    encode: Callable[[Any, str, str], Ids]
    kind: str
    """classifier: one logit at the last token; qwen: the two-layer score of qwen_reward.py at the last token, or with
    trust_remote_code the first output of the model's own code; causal: the first vocabulary entry's logit at the last token."""


def _chat(question: str, trace: str, system: str | None = None) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": trace}]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def _rendered(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    return chat_text(tokenizer, messages, prompt=False)


def qwen25_math_rm(tokenizer: Any, question: str, trace: str) -> Ids:
    """System, user, assistant by the chat template; nothing added in tokenising."""
    return list(tokenizer(_rendered(tokenizer, _chat(question, trace, QWEN_SYSTEM)), add_special_tokens=False).input_ids)


def skywork_v2(tokenizer: Any, question: str, trace: str) -> Ids:
    """User, assistant; the template's BOS is cut off, because tokenising puts one there."""
    text = _rendered(tokenizer, _chat(question, trace))
    if tokenizer.bos_token is not None:
        text = text.removeprefix(tokenizer.bos_token)
    return list(tokenizer(text).input_ids)


def conversation(tokenizer: Any, question: str, trace: str) -> Ids:
    """User, assistant by the chat template; no generation prompt, nothing added in tokenising."""
    return list(tokenizer(_rendered(tokenizer, _chat(question, trace)), add_special_tokens=False).input_ids)


def sequence_classification(tokenizer: Any, question: str, trace: str) -> Ids:
    """A conversation where there is a chat template; else problem and trace as a pair of texts."""
    if getattr(tokenizer, "chat_template", None):
        return conversation(tokenizer, question, trace)
    return list(tokenizer(question, trace).input_ids)


FORMATS: dict[str, Format] = {
    "lab": Format(conversation, "classifier"),
    "qwen25_math_rm": Format(qwen25_math_rm, "qwen"),
    "skywork_v2": Format(skywork_v2, "classifier"),
    "nemotron": Format(conversation, "causal"),
    "sequence_classification": Format(sequence_classification, "classifier"),
}
