"""Takes off what is around an answer and is no part of it, at the level of its text."""

from __future__ import annotations

import re

from qup.answers.extraction import last_box

_QUOTED = re.compile(r"\\(?:text|textrm|textbf|textit|mathrm|mathbf|mbox|operatorname|boxed|fbox|underline|boldsymbol|bf) ?\{([^{}]*)\}")


_COMBINATIONS = re.compile(
    r"(?<![0-9A-Za-z_^])(?:(?:\{\})?[_^] ?\{?([0-9]+)\}? ?C ?_ ?\{?([0-9]+)\}?|([0-9]+) ?C ?([0-9]+))(?![0-9A-Za-z])"
)


_BOXED = re.compile(r"\\(?:boxed|fbox) ?(?=\{)")


def unwrapped(text: str) -> str:
    """The text with \\text{} and its kind taken off whatever is mathematics in them, and off the whole."""

    def off(match: re.Match[str]) -> str:
        inside = match[1].strip()
        if re.search(r"\b(?:and|or)\b", inside) and not re.search(r"[A-Za-z]{4,}", inside):
            return f" {inside} "
        if match[0].startswith(("\\mathbf", "\\boldsymbol", "\\bf")) and inside in ("i", "j", "k", "R", "Z", "N", "Q", "C"):
            return match[0]
        if inside and not re.search(r"[A-Za-z]{2,}", inside) and not inside.endswith((".", "'")):
            return (
                f"{match[0][: len(match[0]) - len(match[0].lstrip())]}{match[1]}"
                if not re.fullmatch("[a-zA-Z]", inside) or "math" in match[0] or "bf" in match[0]
                else match[0]
            )
        return match[0]

    while box := _BOXED.match(text):
        text = last_box(text) or "" if text.endswith("}") and text.count("\\boxed") == 1 else text[box.end() :]
    whole = _QUOTED.fullmatch(text)
    while whole and not (text.startswith(("\\mathbf", "\\boldsymbol")) and whole[1] in ("i", "j", "k")):
        text = whole[1].strip()
        whole = _QUOTED.fullmatch(text)
    text = _QUOTED.sub(off, text)
    text = _COMBINATIONS.sub(lambda m: f"\\binom{{{m[1] or m[3]}}}{{{m[2] or m[4]}}}", text)
    text = re.sub(r"^(?:=|\\approx|\\sim|\\therefore|\\Rightarrow|\\implies|~|:) ?", "", text.strip()).strip()
    text = re.sub(r"^(?:[Nn]egative|[Mm]inus) (?=[0-9\\])", "-", text)
    text = re.sub(r"\{(\\(?:text|mathrm) ?\{[^{}]*\})\}", r"\1", text)
    text = re.sub(r"[,;:]$", "", text).strip()
    while re.fullmatch(r"\{[^{}]*\}", text):
        text = text[1:-1].strip()
    return text
