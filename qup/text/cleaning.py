"""Light cleaning of the student's own traces: named conservative rules that take generation noise away.

No rule edits a formula. What follows the solution may be cut off as a whole (a leaked turn, a verbatim
repetition), so the formulas of a cleaned trace are the first formulas of the raw one, byte for byte.
A rule whose result breaks this, or no longer gives the same answer, is undone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

FORMULA = re.compile(
    r"\$\$.+?\$\$"
    r"|\\\[.+?\\\]"
    r"|\\\(.+?\\\)"
    r"|\\begin\{(?P<env>[A-Za-z]+\*?)\}.+?\\end\{(?P=env)\}"
    r"|(?<!\\)\$[^$\n]+?(?<!\\)\$"
    r"|```.+?(?:```|\Z)"
    r"|\\boxed\s*\{",
    re.DOTALL,
)
"""What counts as a formula (or code): delimited mathematics, environments, fences, and a box with its braces."""

MARKER = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|begin_of_text|end|user|assistant|system|eom_id)\|>|</?s>|<(?:eos|bos|pad)>"
)
ENDING = re.compile(r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text|end|user|eom_id)\|>|</s>|<eos>")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u200e\u200f\u2060\ufeff\ufffd]")
TURN = re.compile(
    r"\n+[ \t]*(?:\*\*|#+ )?(?:Human|User|Assistant|Question|Problem|Instruction|Input)[ \t]*\d*[ \t]*(?:\*\*)?[ \t]*(?::|(?=\n|\Z))",
    re.IGNORECASE,
)
"""A role or a heading at the start of a line, with a colon behind it or alone on its line."""
OUTPUT = re.compile(r"\n+[ \t]*```[ \t]*output\b", re.IGNORECASE)
BOX = re.compile(r"\\boxed\s*\{")
SENTENCE_END = re.compile(r"[.!?。](?=\s|\Z)|\n")


@dataclass(frozen=True)
class Cleaned:
    """A cleaned trace, the rules that changed it, and those undone because the answer changed with them."""

    text: str
    rules: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()


def formula_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every formula, in order, not overlapping; a box goes to its closing brace."""
    spans = []
    position = 0
    while found := FORMULA.search(text, position):
        end = _closing(text, found.end()) if found.group().startswith("\\boxed") else found.end()
        spans.append((found.start(), end))
        position = max(end, found.start() + 1)
    return spans


def formulas(text: str) -> list[str]:
    """The formulas of a text, in order."""
    return [text[start:end] for start, end in formula_spans(text)]


def _closing(text: str, start: int) -> int:
    """Where the brace opened just before `start` is closed; the text's end where it never is."""
    depth = 1
    for found in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(found.group(), 0)
        if depth == 0:
            return start + found.end()
    return len(text)


def _outside(text: str, pattern: re.Pattern[str], replacement: str) -> str:
    """Replaces matches that touch no formula."""
    if not pattern.search(text):
        return text
    spans = formula_spans(text)

    def swap(found: re.Match[str]) -> str:
        touches = any(start < found.end() and found.start() < end for start, end in spans)
        return found.group() if touches else replacement

    return pattern.sub(swap, text)


def _cut(text: str, at: int) -> str:
    """The text up to `at`, unless that lies inside a formula."""
    return text if any(start < at < end for start, end in formula_spans(text)) else text[:at].rstrip()


def _special_tokens(text: str) -> str:
    """Leaked chat markers: one that ends a turn cuts off what follows, unless nothing precedes it; others are removed."""
    for found in ENDING.finditer(text):
        if text[: found.start()].strip() and (cut := _cut(text, found.start())) != text:
            text = cut
            break
    return _outside(text, MARKER, "")


def _control_characters(text: str) -> str:
    """Carriage returns, null bytes, zero-width and replacement characters."""
    return _outside(_outside(text, re.compile(r"\r\n?"), "\n"), CONTROL, "")


def _next_turn(text: str) -> str:
    """A further exchange made up after the boxed answer."""
    boxes = list(BOX.finditer(text))
    for found in TURN.finditer(text):
        if boxes and boxes[0].end() < found.start():
            return _cut(text, found.start())
    return text


def _invented_output(text: str) -> str:
    """What a program is said to have printed after the boxed answer, and all behind it: no program ran."""
    boxes = list(BOX.finditer(text))
    found = OUTPUT.search(text, boxes[0].end()) if boxes else None
    return text if found is None else text[: found.start()].rstrip()


def _repeated_tail(text: str) -> str:
    """The last paragraph, where it repeats the one before it verbatim; again and again."""
    while True:
        parts = re.split(r"(\n\s*\n|\n)", text.rstrip())
        if len(parts) < 3 or not parts[-1].strip() or parts[-1].strip() != parts[-3].strip():
            return text
        shorter = _cut(text.rstrip(), len(text.rstrip()) - len(parts[-1]))
        if shorter == text.rstrip():
            return text
        text = shorter


def _after_answer(text: str) -> str:
    """Prose after the sentence that holds the last box, where it has no formula, no digit and no more than 400 characters."""
    boxes = list(BOX.finditer(text))
    if not boxes:
        return text
    end = next((stop for start, stop in formula_spans(text) if start <= boxes[-1].start() < stop), len(text))
    closing = SENTENCE_END.search(text, end)
    if closing is None:
        return text
    tail = text[closing.end() :]
    if not tail.strip() or len(tail) > 400 or re.search(r"[\d\\$=`]", tail) or formula_spans(tail):
        return text
    return _cut(text, closing.end())


def _trailing_space(text: str) -> str:
    """Blanks at the ends of lines, and all white space at the end of the text."""
    text = _outside(text, re.compile(r"[ \t]+(?=\n)"), "")
    return _cut(text, len(text.rstrip())) if text != text.rstrip() else text


def _blank_lines(text: str) -> str:
    """More than one blank line between paragraphs, and blank lines before the first."""
    return _outside(_outside(text, re.compile(r"\n{3,}"), "\n\n"), re.compile(r"\A\s*\n(?=\S)"), "")


RULES: dict[str, Callable[[str], str]] = {
    "special_tokens": _special_tokens,
    "control_characters": _control_characters,
    "next_turn": _next_turn,
    "invented_output": _invented_output,
    "repeated_tail": _repeated_tail,
    "after_answer": _after_answer,
    "trailing_space": _trailing_space,
    "blank_lines": _blank_lines,
}
"""In the order in which they are applied."""


def clean(text: str, extract: Callable[[str], str]) -> Cleaned:
    """Applies every rule in turn; `extract` gives the answer that must stay the same."""
    answer: str | None = None
    fired, undone = [], []
    for name, rule in RULES.items():
        cleaned = rule(text)
        if cleaned == text:
            continue
        if answer is None:
            answer = extract(text)
        kept = formulas(cleaned)
        if cleaned.strip() and kept == formulas(text)[: len(kept)] and extract(cleaned) == answer:
            text = cleaned
            fired.append(name)
        else:
            undone.append(name)
    return Cleaned(text, tuple(fired), tuple(undone))
