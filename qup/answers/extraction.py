"""Reading the final answer out of a response. Every mode takes linear time on any text and never raises."""

from __future__ import annotations

import re
from collections.abc import Callable

from qup.errors import InputError

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])|(?<![A-Za-z\\])boxed(?=\{)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_UNBRACED_END = re.compile(r"\$|\\\)|\\\]|\n")
_NUMBER = re.compile(r"(?:(?<![\w)\]}])-)?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)")
_ANSWER_IS = re.compile(r"\banswer\s+is\b", re.IGNORECASE)
_ANSWER_MARK = re.compile(r"\b(?:answer\s+is\b|answer\**\s{0,3}[:=]|final\s{1,3}answer\**\s{0,3}\n)", re.IGNORECASE)
_SHORT = re.compile(r"[\s*_#:]*(?:[$\\(\[{+-]|[0-9.]|[A-Za-z](?![A-Za-z])|[^\n]{1,25}(?:\n|$))")
"""What may follow "Answer:", which also heads whole solutions."""
_FILLERS = re.compile(
    r"(?:\s|\*|:)*(?:(?:therefore|thus|hence|then|simply|just|indeed|actually|also|clearly|exactly|equal to|given by|as follows)\b[\s,:]*)*",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"(?:not |also |indeed |now |fully |absolutely )*(?:consistent|correct|right|wrong|incorrect|verified|valid|reasonable|plausible|confirmed|clear|obvious|unique"
    r"|sensible|below|above|the same|as follows|found|known|ready|complete|given|in the box|boxed)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_CLAUSE = re.compile(
    r",?\s+(?:which|because|since|whereas)\s|,\s+(?:so|as|where|with|but|making|giving|meaning|that|hence|thus|therefore|when|if|for)\s|,\s+and\s+(?:the|this|so|we|it|that)\s",
    re.IGNORECASE,
)
_BETWEEN_BOXES = re.compile(r"(?:[\s$,;]|\\[()\[\],;]|\\text\s*\{|\}|\\q?quad|\b(?:and|or)\b|[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=)*")
_JOINED_BY = re.compile(r"[,;]|\b(?:and|or)\b|[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=")
_BOX_NAME = re.compile(r"[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=\s*$")
_MOST_BOXES = 12
_MOST_MARKS = 20
_GAP = 60
"""Characters that two boxes of one answer may have between them."""
_SEPARATOR = re.compile(r"(?<=[0-9])(?:\{,\}|,?\\!|\\,)(?=[0-9]{3})")
_ANSWER = re.compile("answer", re.IGNORECASE)
_INTEGER = re.compile(r"-?[0-9]+")
_SENTENCE_END = re.compile(r"\.(?=\s|\*|$)|\n")
HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair, which no UTF-8 can hold."""
_DISPLAY = (("\\[", "\\]"), ("$$", "$$"))


def extract(text: str, mode: str) -> str:
    """The final answer of a response as the response writes it, or "" where it has none.

    `mode` is one of `schema.EXTRACTIONS`; "dft" follows the order of the DFT authors' evaluation harness.
    Halves of surrogate pairs come back as U+FFFD, so that the result can be stored.
    """
    try:
        answer = _MODES[mode](text)
    except KeyError:
        raise InputError(f"extraction={mode!r}: valid are {', '.join(_MODES)}") from None
    return HALF_PAIR.sub("\ufffd", answer.strip())


def last_box(text: str) -> str | None:
    """What the last `\\boxed` holds, braces balanced; None where there is none or it never closes.

    Boxes that only `and`, `or`, a comma or a name with = part are one answer: \\boxed{3} and \\boxed{4} is "3, 4".
    """
    starts = [(match.start(), match.end()) for match in _BOX.finditer(text)]
    if not starts:
        return None
    found = _box(text, starts[-1][1])
    if found is None or len(starts) == 1:
        return found and found[0]
    parts, first = [_with_name(text, starts[-1][0], found[0])], starts[-1][0]
    for start, end in reversed(starts[-_MOST_BOXES:-1]):
        before = _box(text, end)
        if before is None or not 0 <= first - before[1] <= _GAP:
            break
        gap = text[before[1] : first]
        if not _BETWEEN_BOXES.fullmatch(gap) or not _JOINED_BY.search(gap):
            break
        parts.append(_with_name(text, start, before[0]))
        first = start
    distinct = list(dict.fromkeys(reversed(parts)))
    return found[0] if len(distinct) == 1 else ", ".join(distinct)


def _with_name(text: str, start: int, inside: str) -> str:
    """What a box holds, with the name = that stands right before it."""
    name = _BOX_NAME.search(text, max(0, start - 12), start)
    return f"{name[0].strip()}{inside}" if name and "=" not in inside else inside


def _box(text: str, start: int) -> tuple[str, int] | None:
    """What the box whose macro ends at `start` holds, and where it ends."""
    while start < len(text) and text[start] in " \t\n\r":
        start += 1
    if not text.startswith("{", start):
        end = _UNBRACED_END.search(text, start)
        return text[start : end.start() if end else len(text)].strip(), end.start() if end else len(text)
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return text[start + 1 : match.start()].strip(), match.end()
    return None


def last_number(text: str) -> str:
    """The last number of a text without its thousands separators, or ""."""
    found = ""
    for match in _NUMBER.finditer(_SEPARATOR.sub(",", text)):
        found = match[0]
    return found.replace(",", "")


def first_number(text: str) -> str:
    """The first number of a text without its thousands separators, or ""."""
    match = _NUMBER.search(_SEPARATOR.sub(",", text))
    return match[0].replace(",", "") if match else ""


def balanced(text: str) -> bool:
    """Whether every unescaped brace has its partner."""
    depth = 0
    for match in _BRACE.finditer(text):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return depth == 0


def _boxed(text: str) -> str:
    return last_box(text) or ""


def _dft(text: str) -> str:
    return _final_answer(text) or last_box(text) or _answer_is(text) or last_number(text)


def _final_answer(text: str) -> str:
    """Minerva's "final answer is $…$. I hope it is correct."."""
    opening, closing = "final answer is $", "$. I hope"
    start = text.find(opening)
    end = text.find(closing, start + len(opening)) if start >= 0 else -1
    if end < 0:
        return ""
    inside = text[start + len(opening) : end].strip()
    return last_box(inside) or inside


def _answer_is(text: str) -> str:
    """What follows the last "the answer is" or "Final answer:" that says what it is, to the end of its sentence or main clause."""
    for match in reversed(list(_ANSWER_MARK.finditer(text))[-_MOST_MARKS:]):
        if not _ANSWER_IS.fullmatch(match[0]) and not _SHORT.match(text, match.end()):
            continue
        rest = text[match.end() :].lstrip(" \t\r\n:*_#")
        for opening, closing in _DISPLAY:
            end = rest.find(closing, len(opening)) if rest.startswith(opening) else -1
            if end >= 0:
                return rest[len(opening) : end].strip()
        end_of_sentence = _SENTENCE_END.search(rest)
        sentence = (rest[: end_of_sentence.start()] if end_of_sentence else rest).strip(" \t\r*")
        filler = _FILLERS.match(sentence)
        sentence = sentence[filler.end() :] if filler else sentence
        if not _NO_ANSWER.fullmatch(sentence):
            clause = _CLAUSE.search(sentence, 1)
            return (sentence[: clause.start()] if clause else sentence).strip(" \t\r*_")
    return ""


def _gsm8k(text: str) -> str:
    start = text.find("####")
    if start < 0:
        return last_number(text)
    line = text[start:].lstrip("#").lstrip(" ").partition("\n")[0]
    return first_number(line) or last_number(text)


def _lab(text: str) -> str:
    start = None
    for match in _ANSWER.finditer(text):
        start = match.end()
    found = _INTEGER.findall(text, start) if start is not None else []
    return found[-1] if found else ""


_MODES: dict[str, Callable[[str], str]] = {"dft": _dft, "boxed": _boxed, "last_number": last_number, "gsm8k": _gsm8k, "lab": _lab}
