"""The normal form in which two answers are the same when their strings are.

Each rule is one that cannot make different answers the same; RULES is the list, and docs/answers.md shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from qup.answers.values import MACRO, read_number

LONGEST = 2000
"""Characters; longer answers are compared as they stand."""


@dataclass(frozen=True)
class Rule:
    """One rewriting: its name, what it does, and the function."""

    name: str
    does: str
    apply: Callable[[str], str]


def _rule(name: str, does: str, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> Rule:
    compiled = re.compile(pattern)
    return Rule(name, does, lambda text: compiled.sub(replacement, text))


_CHARACTERS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
        "\u200b": "",
        "×": "\\times ",
        "·": "\\cdot ",
        "π": "\\pi ",
        "∞": "\\infty ",
        "°": "^\\circ ",
    }
)
_WORD = re.compile(r"(?=(?:[^A-Za-z]*[A-Za-z]){4})[A-Za-z]+(?: [A-Za-z]+)*")

TIDY = (
    Rule("characters", "Unicode minus, thin spaces, ×, ·, π, ∞, ° as their LaTeX or ASCII forms", lambda text: text.translate(_CHARACTERS)),
    _rule("emphasis", "Markdown's `**` at either end", r"^\s*\*\*|\*\*\s*$", ""),
    _rule("dollars", "unescaped `$`", r"(?<!\\)\$", ""),
    _rule("delimiters", r"`\(`, `\)`, `\[`, `\]`", r"(?<!\\)\\[()\[\]]", " "),
    _rule("sizes", r"`\left`, `\right`, `\big` and their kind", r"\\(?:(?:left|right)(?:\.|(?![A-Za-z]))|[bB]igg?[lrm]?(?![A-Za-z]))", ""),
    _rule("negative space", r"`\!`", r"(?<!\\)\\!", ""),
    _rule(
        "spaces",
        r"`\,` `\;` `\:` `\ ` `~` `\quad` `\qquad`, line breaks and runs of blanks are one blank",
        r"(?:(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])|\s)+",
        " ",
    ),
    _rule("braced comma", "`{,}` is a comma", r"\{,\}", ","),
    _rule("fractions", r"`\dfrac`, `\tfrac`, `\cfrac` are `\frac`", r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    _rule(
        "short arguments",
        r"`\frac12`, `\frac1{2}` with their braces",
        r"\\frac ?(?:([0-9])|(\{[^{}]*\})) ?(?:([0-9])|(\{[^{}]*\}))",
        lambda m: "\\frac" + (m[2] or f"{{{m[1]}}}") + (m[4] or f"{{{m[3]}}}"),
    ),
    _rule("short roots", r"`\sqrt2` with its braces", r"\\sqrt ?([0-9])", r"\\sqrt{\1}"),
    _rule("full stop", "one full stop at the end", r"(?<!\.)\.\s*$", ""),
    Rule("ends", "blanks at either end", str.strip),
)

FORM = (
    _rule(
        "text",
        r"`\text{…}`, `\mathrm{…}`, `\textbf{…}`, `\mbox{…}` and their kind stand for what they hold",
        MACRO + r"\{([^{}\\]*)\}",
        r" \1 ",
    ),
    _rule("short indices", "`^{x}` and `_{x}` around one character without their braces", r"([\^_]) ?\{ ?([0-9A-Za-z]) ?\}", r"\1\2"),
    _rule("percent", r"`\%` is `%`", r"\\%", "%"),
    _rule("blanks", "blanks not between two letters or digits", r"(?<![0-9A-Za-z ]) +| +(?![0-9A-Za-z ])", ""),
    _rule("runs", "runs of blanks as one", r" +", " "),
)

WHOLE = (
    ("numbers", "a whole answer that is a number counts by its value: 1,000 = 1000 = 1 000, 3.50 = 3.5, 025 = 25, 1/2 = 0.5"),
    ("words", "a whole answer of letters alone, at least four, in either case"),
)
"""Rules that look at the answer as a whole."""

RULES = (*((rule.name, rule.does) for rule in (*TIDY, *FORM)), *WHOLE)


def tidy(text: str) -> str:
    """The answer without what is there for looks only; still LaTeX."""
    for rule in TIDY:
        text = rule.apply(text)
    return text


def normal(tidied: str) -> str:
    """The normal form of a tidied answer."""
    number = read_number(tidied)
    if number is not None and number.bare:
        return str(number.value)
    for rule in FORM:
        tidied = rule.apply(tidied)
    return tidied.casefold() if is_words(tidied) else tidied


def is_words(form: str) -> bool:
    """Whether an answer is letters alone, at least four: a name or a phrase, not a product of variables."""
    return _WORD.fullmatch(form) is not None
