"""Reading the gold answer out of a data set's column."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from qup.answers.extraction import HALF_PAIR, balanced, last_box
from qup.errors import InputError

_INTEGER = re.compile(r"[+-]?[0-9]+")
_MOST_DIGITS = 100_000


def gold(value: Any, mode: str) -> str:
    """The gold answer held by `value`, by a mode of `schema.GOLDS`.

    plain: the value itself (43.0 is "43"); boxed: the last \\boxed; gsm8k: after ####; float: a number;
    first: a list's first entry, `$…$` around it removed; lab: an integer.
    Raises InputError, which says why, where there is none or its braces do not balance.
    """
    try:
        read = _MODES[mode]
    except KeyError:
        raise InputError(f"gold={mode!r}: valid are {', '.join(_MODES)}") from None
    answer = read(value).strip()
    if not answer:
        raise InputError("the gold answer is empty")
    if "\x00" in answer or HALF_PAIR.search(answer):
        raise InputError(f"the gold answer {_short(answer)} holds a null byte or half a surrogate pair")
    if not balanced(answer):
        raise InputError(f"the gold answer {_short(answer)} has unbalanced braces")
    return answer


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, list | tuple | dict):
        raise InputError(f"{_short(value)} is not an answer; expected a text or a number")
    if isinstance(value, str):
        return value
    return _number(value)


def _boxed(value: Any) -> str:
    answer = last_box(_text(value))
    if answer is None:
        raise InputError(f"no closed \\boxed in {_short(value)}")
    return answer


def _gsm8k(value: Any) -> str:
    _, mark, answer = _text(value).rpartition("####")
    if not mark:
        raise InputError(f"no #### in {_short(value)}")
    return answer.strip().replace(",", "") if re.fullmatch(r"\s*-?[0-9][0-9,.]*\s*", answer) else answer


def _float(value: Any) -> str:
    if isinstance(value, str):
        try:
            return _digits(Decimal(value.strip()))
        except InvalidOperation:
            raise InputError(f"{_short(value)} is not a number") from None
    return _number(value)


def _first(value: Any) -> str:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise InputError(f"{_short(value)} is not a list") from None
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{_short(value)} is not a list")
    if not value:
        raise InputError("the list of gold answers is empty")
    answer = _plain(value[0]).strip()
    inside = answer[1:-1]
    return inside.strip() if answer == f"${inside}$" and "$" not in inside else answer


def _lab(value: Any) -> str:
    text = _plain(value).strip()
    if not _INTEGER.fullmatch(text):
        raise InputError(f"{_short(value)} is not an integer")
    return text


def _number(value: Any) -> str:
    """All digits of a number, without zeros after the point; a float has those that tell it from other floats."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InputError(f"{_short(value)} is not a number")
    if isinstance(value, float) and math.isfinite(value) and value != int(value):
        return repr(value)
    return _digits(value if isinstance(value, Decimal) else Decimal(value))


def _digits(value: Decimal) -> str:
    if not value.is_finite() or abs(value.adjusted()) > _MOST_DIGITS:
        raise InputError(f"{_short(str(value))} is not a number")
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text.strip("-0") == "" else text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{_short(value)} is not a text")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:28]}…{text[-28:]}"


_MODES: dict[str, Callable[[Any], str]] = {
    "plain": _plain,
    "boxed": _boxed,
    "gsm8k": _gsm8k,
    "float": _float,
    "first": _first,
    "lab": _lab,
}
