"""One verdict, step by step: what `qup answers` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any

from qup.answers.comparison import decide, form, shape
from qup.answers.reading.normal import LONGEST, TIDY
from qup.answers.reading.vocabulary import Node
from qup.answers.verifier import CORRECT, Verifier

WHY = {
    "equal": "the same in the normal form",
    "symbolic": "the same by the rules of their shapes",
    "wrong": "different for certain",
    "undecided": "not certain, so not correct",
    "no_answer": "there is no answer",
    "timeout": "the comparison took too long, so not correct",
}


def explain(answer: str, gold: str, timeout_s: float) -> Iterator[tuple[str, str]]:
    """(step, what came of it), the verdict last; rules are those of docs/answers.md."""
    for side, text in (("answer", answer), ("gold", gold)):
        if not text or len(text) > LONGEST:
            yield side, "empty" if not text else f"{len(text)} characters, compared as they stand"
            continue
        yield side, text
        fired = list(_fired(text))
        if fired:
            yield f"{side} tidied", f"{form(text).tidied}   ({', '.join(fired)})"
        yield f"{side} in normal form", form(text).normal
    early = decide(answer, gold)
    if early not in ("equal", "no_answer") and max(len(answer), len(gold)) <= LONGEST:
        for side, text in (("answer", answer), ("gold", gold)):
            found = shape(form(text).tidied)
            yield f"{side} read as", f"nothing for certain: {found}" if isinstance(found, str) else described(found)
    with Verifier(timeout_s, workers=1) as verifier:
        (verdict,) = verifier.verdicts([(answer, gold)])
    if early is None:
        yield "compared", "by values, in a process of its own"
    yield "verdict", f"{verdict}: {WHY[verdict]}; {'correct' if verdict in CORRECT else 'not correct'}"


def _fired(text: str) -> Iterator[str]:
    for rule in TIDY:
        after = rule.apply(text)
        if after != text:
            yield rule.name
        text = after


def described(found: Any) -> str:
    """A shape in words: its kind and what it holds."""
    if isinstance(found, str | bool | int | None):
        return str(found)
    if is_dataclass(found):
        parts = [(field.name, getattr(found, field.name)) for field in fields(found) if field.name not in ("whole", "size", "dimension")]
        told = ", ".join(f"{name} {described(value)}" for name, value in parts if value not in (None, False, "", ()))
        return f"{type(found).__name__.lower()}({told})"
    if isinstance(found, Fraction):
        return str(found)
    if found and isinstance(found[0], str) and found[0] in _KINDS:
        return shown(found)
    return f"[{', '.join(map(described, found))}]"


_KINDS = ("num", "sym", "const", "add", "mul", "pow", "root", "fn", "pm", "mp", "sum", "prod", "int", "lim")


def shown(node: Node) -> str:
    """An expression in plain text, every bracket written."""
    kind = node[0]
    if kind in ("num", "sym", "const"):
        return str(node[1])
    inner = [shown(part) for part in node[1:] if isinstance(part, tuple)]
    match kind:
        case "add" | "mul":
            return f"({(' + ' if kind == 'add' else '·').join(inner)})"
        case "pow":
            return f"{inner[0]}^{inner[1]}"
        case "root":
            return f"root{node[1]}({inner[0]})"
        case "pm" | "mp":
            return f"{'±' if kind == 'pm' else '∓'}{inner[0]}"
        case "fn":
            return f"{str(node[1]).removeprefix('of:')}({', '.join(inner)})"
        case _:
            return f"{kind} over {node[1]} ({', '.join(inner)})"
