"""The normal form in which two answers are the same when their strings are.

Each rule is one that cannot make different answers the same; RULES is the list, and docs/answers.md shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from qup.answers.reading.characters import plain

LONGEST = 2000
"""Characters; longer answers are compared as they stand."""
MACRO = r"\\(?:text|textrm|textbf|textit|textsf|mathrm|mathbf|mathit|mbox|hbox)"


@dataclass(frozen=True)
class Rule:
    """One rewriting: its name, what it does, and the function."""

    name: str
    does: str
    apply: Callable[[str], str]


def _rule(name: str, does: str, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> Rule:
    compiled = re.compile(pattern)
    return Rule(name, does, lambda text: compiled.sub(replacement, text))


_MARKED = re.compile(r"\s*(\*\*|\*|__|_|`+|\"|``|'')(?=\S)(.+?)(?<=\S)(?:\1|'')\s*", re.DOTALL)


def _unmarked(text: str) -> str:
    while (match := _MARKED.fullmatch(text)) and match[1] not in match[2]:
        text = match[2]
    return re.sub(r"^\s*\*\*|\*\*\s*$", "", text)


_REPEATED = re.compile(
    r"(?<![0-9A-Za-z.)])(?:(0\.[0-9]*|[0-9]+\.)\(([0-9]+)\)(?![0-9A-Za-z^])|([0-9]*\.[0-9]*?)(?:([0-9])\4{2,}|([0-9]{2,6}?)\5{1,}) ?(?:\.\.\.|\\[lc]?dots))"
    r"|(?<=\.)\\dot ?\{?([0-9])\}?([0-9]*)\\dot ?\{?([0-9])\}?"
)


def _overlined(match: re.Match[str]) -> str:
    if match[6]:
        return f"\\overline{{{match[6]}{match[7]}{match[8]}}}"
    return f"{match[1] or match[3]}\\overline{{{match[2] or match[4] or match[5]}}}"


TIDY = (
    Rule("characters", "Unicode signs (−, ×, ≤, √, π, ½, x², x₁, full width …) as their LaTeX or ASCII forms", plain),
    Rule("emphasis", "Markdown's `*`, `**`, `_`, `__`, `` ` `` and quotation marks around the whole; `**` at either end", _unmarked),
    _rule("colours", r"`\color{…}`, `\textcolor{…}`, `\phantom{…}`", r"\\(?:color|textcolor|[hv]?phantom) ?\{[^{}]*\}", ""),
    _rule("plus or minus", "`+/-` is `\\pm`", r"\+ ?/ ?-", r"\\pm "),
    _rule(
        "environments",
        r"`aligned` and its kind, and `&` at a relation in them",
        r"\\(?:begin|end) ?\{(?:aligned|align|gathered|split|equation)\*?\}|& ?(?==)|(?<==) ?&",
        " ",
    ),
    _rule(
        "fillers",
        r"`\hspace{…}`, `\vspace{…}`, `\ensuremath`, `{\rm …}` as `\mathrm{…}`",
        r"\\[hv]space\*? ?\{[^{}]*\}|\\ensuremath(?![A-Za-z])|\{\\(rm|bf|it|sf|tt) ([^{}]*)\}",
        lambda m: f"\\math{m[1]}{{{m[2]}}}" if m[1] else " ",
    ),
    _rule(
        "split signs",
        "`> =` is `>=`, `{.}` is a point, dy/dx is a fraction",
        r"([<>]) =|(?<=[0-9])\{\.\}|(?<![A-Za-z\\])d([a-z]) ?/ ?d([a-z])(?![A-Za-z])",
        lambda m: f"{m[1]}=" if m[1] else f"\\frac{{d{m[2]}}}{{d{m[3]}}}" if m[2] else ".",
    ),
    _rule("lost backslash", "`frac{` is `\\frac{`", r"(?<![\\A-Za-z])[dt]?frac(?=\{)", r"\\frac"),
    _rule("dollars", "unescaped `$`", r"(?<!\\)\$", ""),
    _rule("delimiters", r"`\(`, `\)`, `\[`, `\]`", r"(?<!\\)\\[()\[\]]", " "),
    _rule(
        "sizes",
        r"`\left`, `\right`, `\big` and their kind",
        r"\\(?:(?:left|right|middle)(?:\.|(?![A-Za-z]))|[bB]igg?[lrm]?(?![A-Za-z]))",
        "",
    ),
    _rule(
        "styles",
        r"`\displaystyle`, `\textstyle`, `\limits`, `\nolimits`",
        r"\\(?:(?:display|text|script)style|(?:no)?limits)(?![A-Za-z])",
        " ",
    ),
    _rule(
        "separators",
        r"`{,}`, `,\!` and `\,` between digits that part thousands",
        r"(?<=[0-9])(?:\{,\} ?|,?(?:\\!)+ ?|\\,)(?=[0-9]{3}(?![0-9]))",
        "",
    ),
    _rule("negative space", r"`\!`", r"(?<!\\)\\!", ""),
    _rule(
        "spaces",
        r"`\,` `\;` `\:` `\ ` `~` `\quad` `\qquad`, line breaks and runs of blanks are one blank",
        r"(?:(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])|\\thinspace(?![A-Za-z])|\s)+",
        " ",
    ),
    _rule("braced comma", "`{,}` is a comma", r"\{,\}", ","),
    _rule(
        "fractions",
        r"`\dfrac`, `\tfrac`, `\cfrac` are `\frac`; `\dbinom`, `\tbinom` are `\binom`",
        r"\\[dtc](frac|binom)(?![A-Za-z])",
        r"\\\1",
    ),
    _rule(
        "short arguments",
        r"`\frac12`, `\frac1{2}` with their braces",
        r"\\(frac|binom) ?(?:([0-9])|(\{[^{}]*\})) ?(?:([0-9])|(\{[^{}]*\}))",
        lambda m: f"\\{m[1]}" + (m[3] or f"{{{m[2]}}}") + (m[5] or f"{{{m[4]}}}"),
    ),
    _rule("short roots", r"`\sqrt2` with its braces", r"\\sqrt ?([0-9])", r"\\sqrt{\1}"),
    _rule(
        "short styles",
        r"`\mathbb R` with its braces; `\mathrm{e}` is e",
        r"\\(mathbb|mathbf|mathcal|mathrm) ([A-Za-z])(?![A-Za-z])|\\(?:mathrm|operatorname) ?\{([ei])\}",
        lambda m: m[3] or f"\\{m[1]}{{{m[2]}}}",
    ),
    _rule(
        "crosses",
        "x between a number and a power of ten, or with blanks between two numbers, is a sign of multiplication",
        r"(?<=[0-9])(?: ?[xX] ?(?=10 ?\^)| [xX] (?=[0-9]))",
        r"\\times ",
    ),
    Rule("periods", "`0.(3)` and `0.333...` are `0.\\overline{3}`", lambda text: _REPEATED.sub(_overlined, text)),
    _rule("full stop", "one full stop at the end", r"(?:(?<!\.)\.|\\text ?\{[.,]\})\s*$", ""),
    Rule("ends", "blanks at either end", str.strip),
)

FORM = (
    _rule(
        "text",
        r"`\text{…}`, `\mathrm{…}`, `\textbf{…}`, `\mbox{…}` and their kind stand for what they hold",
        MACRO + r" ?\{([^{}\\]*)\}",
        r" \1 ",
    ),
    _rule("short indices", "`^{x}` and `_{x}` around one character without their braces", r"([\^_]) ?\{ ?([0-9A-Za-z]) ?\}", r"\1\2"),
    _rule("percent", r"`\%` is `%`", r"\\%", "%"),
    _rule("blanks", "blanks not between two letters or digits", r"(?<![0-9A-Za-z ]) +| +(?![0-9A-Za-z ])", ""),
    _rule("runs", "runs of blanks as one", r" +", " "),
)

WHOLE = (
    ("numbers", "a whole answer that is a plain number counts by its value: 1,000 = 1000 = 1 000, 3.50 = 3.5, 025 = 25, 1/2 = 0.5"),
    ("words", "a whole answer of words alone in either case: Evelyn = evelyn, YES = yes; ABCD is not abcd"),
)
"""Rules that look at the answer as a whole."""

RULES = (*((rule.name, rule.does) for rule in (*TIDY, *FORM)), *WHOLE)

_WHOLE_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+"
_NUMBER = re.compile(
    rf" ?(?P<sign>[+-]?) ?(?:(?:(?P<whole>{_WHOLE_NUMBER})?(?P<digits>\.[0-9]+)|(?P<integer>{_WHOLE_NUMBER})\.?)"
    r"|(?P<units>[0-9]+)? ?\\frac ?\{ ?(?P<minus>-?)(?P<top>[0-9]+) ?\} ?\{ ?(?P<bottom>[0-9]+) ?\}"
    r"|(?:(?P<ones>[0-9]+) )?(?P<over>[0-9]+) ?/ ?(?P<under>[0-9]+)) ?"
)
_WORD = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)*")
_SHOUTED = frozenset(
    [
        "YES",
        "NO",
        "TRUE",
        "FALSE",
        "ODD",
        "EVEN",
        "NORTH",
        "SOUTH",
        "EAST",
        "WEST",
        "NONE",
        "UNDEFINED",
        "INFINITE",
        "INFINITY",
        "CORRECT",
        "INCORRECT",
    ]
)


_JOINTS = ("and", "or", "And", "Or")
_FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "ln", "log", "exp", "sqrt", "arcsin", "arccos", "arctan", "pi", "mod", "choose"]
)


def tidy(text: str) -> str:
    """The answer without what is there for looks only; still LaTeX."""
    for rule in TIDY:
        text = rule.apply(text)
    return text


def normal(tidied: str) -> str:
    """The normal form of a tidied answer."""
    number = plain_number(tidied)
    if number is not None:
        return str(number)
    for rule in FORM:
        tidied = rule.apply(tidied)
    tidied = tidied.strip()
    return words(tidied) or tidied


def plain_number(tidied: str) -> Fraction | None:
    """The value of an answer that is a plain integer, decimal, fraction or mixed number as a whole; None for all else."""
    match = _NUMBER.fullmatch(tidied) if len(tidied) <= LONGEST else None
    if match is None:
        return None
    if match["bottom"] or match["under"]:
        whole = int(match["units"] or match["ones"] or 0)
        top, bottom = int(match["top"] or match["over"]), int(match["bottom"] or match["under"])
        mixed = match["units"] or match["ones"]
        if bottom == 0 or (mixed and (not 0 < top < bottom or match["minus"])):
            return None
        value = whole + Fraction(-top if match["minus"] else top, bottom)
    else:
        value = Fraction(re.sub("[, ]", "", match["integer"] or match["whole"] or "0") + (match["digits"] or ""))
    return -value if match["sign"] == "-" else value


def decimals(tidied: str) -> int:
    """Decimal places of a plain number written with a point, else 0."""
    match = _NUMBER.fullmatch(tidied)
    return len(match["digits"] or ".") - 1 if match else 0


def words(form: str) -> str | None:
    """The words that an answer is made of, in lower case; None where its letters may be names of points or variables.

    One word has to have three letters or be among the known ones, and all capitals count as names unless known.
    """
    if not _WORD.fullmatch(form) or form.lower() in ("infinity", "sqrt") or form in _FUNCTIONS:
        return None
    parts = form.split(" ")
    if len(parts) == 1:
        word = parts[0]
        known = word.upper() in _SHOUTED and (word.islower() or word.isupper() or word.istitle())
        if not known and (
            len(word) < 3 or word.isupper() or not (word.islower() or word.istitle()) or not re.search("[aeiouyAEIOUY]", word)
        ):
            return None
        if not known and len(word) < 4 and word.islower():
            return None
    elif all(len(part) < 3 or part in _JOINTS for part in parts) or _FUNCTIONS & set(parts):
        return None
    return " ".join(part.lower() if part.istitle() or part.upper() in _SHOUTED or part.islower() else part for part in parts)
