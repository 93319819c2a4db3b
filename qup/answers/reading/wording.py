"""Numbers written as words: twelve, two thirds, fifty percent, one hundred and five."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = {name: value for value, name in enumerate(
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
)}  # fmt: skip
_TENS = {name: 10 * value for value, name in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)}
_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
          "tenth": 10, "hundredth": 100, "thousandth": 1000}  # fmt: skip
_PERCENT = re.compile(r" ?(?:percent|percentage|per cent|pct|\\?%)$")
_LETTERS = re.compile(r"[A-Za-z][A-Za-z -]*")


def spelled_number(text: str) -> tuple[Fraction, bool] | None:
    """(value, whether in percent) of a number in words as a whole; None where the text is anything else."""
    if len(text) > 120 or not text[:1].isalpha():
        return None
    stripped = _PERCENT.sub("", text)
    percent = stripped != text
    stripped = stripped.strip()
    if not _LETTERS.fullmatch(stripped):
        return None
    names = [name for name in re.split("[ -]+", stripped.lower()) if name != "and"]
    negative = names[:1] in (["negative"], ["minus"])
    names = names[1:] if negative else names
    if not names:
        return None
    value: Fraction | None
    part = _PARTS.get(names[-1].removesuffix("s"))
    if part and (len(names) > 1 or names[0] == "half"):
        above = names[:-1] if names[:-1] not in ([], ["a"], ["an"]) else ["one"]
        top = _whole(above)
        value = None if top is None or top == 0 else Fraction(top, part)
    elif names[-1] == "dozen":
        ones = _whole([name for name in names[:-1] if name not in ("a", "one")] or ["one"])
        value = None if ones is None else Fraction(12 * ones)
    else:
        whole = _whole(names)
        value = None if whole is None else Fraction(whole)
    return None if value is None else (-value if negative else value, percent)


def _whole(names: list[str]) -> int | None:
    """Names in falling order of size, as English has them."""
    total, current, smallest = 0, 0, 10**15
    last = 10**3
    for name in names:
        if name in _ONES:
            if last <= 9 or (last < 100 and (_ONES[name] > 9 or _ONES[name] == 0)):
                return None
            current, last = current + _ONES[name], 1
        elif name in _TENS:
            if last < 100:
                return None
            current, last = current + _TENS[name], 20
        elif name == "hundred":
            if not 0 < current < 20:
                return None
            current, last = current * 100, 100
        elif name in _SCALES:
            if not current or _SCALES[name] >= smallest:
                return None
            total, current, smallest, last = total + current * _SCALES[name], 0, _SCALES[name], 10**3
        else:
            return None
    return total + current if names else None
