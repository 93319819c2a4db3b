"""Numbers as people write them, read exactly: separators, fractions, mixed and repeating numbers, powers of ten, units, bases."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_LONGEST = 2000
"""Characters of a number; arithmetic on longer ones is slow."""
_LONGEST_NAMED = 200
"""Characters of a number with a unit."""

_INT = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+"
_CORES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?P<whole>{_INT})?(?P<digits>\.[0-9]+)",
        rf"(?P<whole>{_INT})\.?",
        r"(?P<mantissa>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)[eE](?P<exponent>[+-]?[0-9]{1,3})",
        r"(?:(?P<mantissa>[0-9]+(?:\.[0-9]+)?|\.[0-9]+) ?(?:\\times|\\cdot|\*) ?)?10 ?\^ ?(?:\{ ?(?P<exponent>-? ?[0-9]{1,3}) ?\}|(?P<digit>[0-9]))",
        r"(?P<whole>[0-9]+)? ?\\frac ?\{ ?(?P<top>-?[0-9]+) ?\} ?\{ ?(?P<bottom>-?[0-9]+) ?\}",
        r"(?:(?P<whole>[0-9]+) )?(?P<top>[0-9]+) ?/ ?(?P<bottom>[0-9]+)",
        r"(?P<whole>[0-9]+)\.(?P<fixed>[0-9]*)\\(?:overline|bar) ?\{(?P<period>[0-9]+)\}",
        r"(?P<numeral>[0-9A-F]+) ?_ ?(?:\{ ?(?P<base>[0-9]{1,2}) ?\}|(?P<digit>[0-9]))",
    )
)
_SIGN = re.compile(r" ?([+-]?) ?(\\?\$|£|€|¥)? ?([+-]?) ?")
_PERCENT = re.compile(r" ?(?:\\?%| percent)$")
_DEGREE = re.compile(r" ?(?:\^ ?\{? ?\\circ ?\}?|\\degree|\\degrees)$")
MACRO = r"\\(?:text|textrm|textbf|textit|mathrm|mathbf|mbox)"
_WRAPPED = re.compile(MACRO + r"\{([^{}\\]*)\}")
_UNIT = re.compile(
    rf" ?(?:{MACRO}\{{ ?(?P<quoted>[A-Za-z][A-Za-z /-]*)\.? ?\}}|(?P<abbreviation>cm|mm|km|kg|mg|ml|mL|ft|sec|min|hr)"
    r"|(?<= )(?P<plain>[A-Za-z]{2,}(?:[ -][A-Za-z]+){0,11}))(?: ?\^ ?\{?(?P<power>[23])\}?)?$"
)
_VOWEL = re.compile("[aeiouyAEIOUY]")
_CURRENCY = {"$": "dollar", "\\$": "dollar", "£": "pound sterling", "€": "euro", "¥": "yen"}
_NO_UNIT = re.compile(
    r"and|or|to|of|plus|minus|times|over|by|mod|dozen|pair|score|hundred|thousand|million|billion|trillion|percent|percentage|per cent"
    r"|alpha|beta|gamma|delta|theta|lambda|mu|sigma|omega|phi|rho|pi|sqrt|root|sin|cos|tan|log|ln|exp|more|less|fewer|than|below|above|negative|squared|cubed|factorial|not|base"
    r"|at|least|most|half|halves|quarters?|thirds?|infinity|point"
    r"|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|[a-z]+teen|[a-z]+tie|hundred|thousand|million|billion)ths?"
)
_MEASURES: dict[str, dict[str, str]] = {
    "length": {"mm millimeter": "1/1000", "cm centimeter": "1/100", "m meter": "1", "km kilometer": "1000"},
    "imperial length": {"in inch": "1", "ft foot": "12", "yd yard": "36", "mile": "63360"},
    "mass": {"mg milligram": "1/1000", "g gram": "1", "kg kilogram": "1000"},
    "imperial mass": {"oz ounce": "1", "lb lbs pound": "16"},
    "time": {"s sec second": "1", "min minute": "60", "h hr hour": "3600", "day": "86400", "week": "604800"},
    "volume": {"ml mL milliliter": "1/1000", "l L liter": "1"},
    "money": {"cent": "1/100", "dollar": "1"},
    "angle": {"degree": "1"},
}
_SCALES: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(factor))
    for dimension, names in _MEASURES.items()
    for aliases, factor in names.items()
    for name in aliases.split()
}
_NAMES = sorted({*_SCALES, *(f"{name}s" for name in _SCALES), "unit", "units", "inches", "feet"}, key=len, reverse=True)
_KNOWN_UNIT = re.compile(
    r"(?:(?<=[0-9})])|(?<=\\pi))(?:"
    rf" ?\\(?:text|textrm|mathrm|mbox)\{{ ?(?:(?:square|cubic|sq|cu)\.? )?(?:{'|'.join(_NAMES)})\.? ?\}}"
    rf"| (?:(?:square|cubic) )?(?:{'|'.join(name for name in _NAMES if len(name) > 2 or name in ('cm', 'mm', 'km', 'kg', 'ft'))})(?![A-Za-z])"
    r")(?: ?\^ ?(?:[23]|\{ ?[23] ?\}))?"
)
_PLURALS = {"inches": "inch", "feet": "foot", "litre": "liter", "litres": "liter", "metre": "meter", "metres": "meter"}
_AREAS = {"2": "square ", "3": "cubic "}


@dataclass(frozen=True)
class Number:
    """A number as written. `numeral` and `base` are set where it carries a base as a subscript; `value` is then in that base."""

    value: Fraction
    rounded: bool = False
    """Written with a decimal point or power of ten, so that its last digit may be a rounded one."""
    percent: bool = False
    unit: str = ""
    base: int = 0
    numeral: str = ""

    @property
    def bare(self) -> bool:
        """No percent sign, unit or base."""
        return not (self.percent or self.unit or self.base)


def read_number(text: str) -> Number | None:
    """The number that `text` (tidied, see normal.py) is as a whole; None where it is anything else."""
    if len(text) > _LONGEST:
        return None
    wrapped = _WRAPPED.fullmatch(text)
    text = wrapped[1].strip() if wrapped else text
    head = _SIGN.match(text)
    if head is None or (head[1] and head[3]):
        return None
    negative = "-" in (head[1], head[3])
    unit = _CURRENCY.get(head[2] or "", "")
    rest = text[head.end() :].rstrip()
    percent = bool(_PERCENT.search(rest))
    rest = _PERCENT.sub("", rest)
    if _DEGREE.search(rest):
        unit, rest = unit or "degree", _DEGREE.sub("", rest)
    number = _core(rest)
    if number is None and not percent and len(rest) <= _LONGEST_NAMED:
        named = _UNIT.search(rest)
        if named is None or (found := _unit(named)) is None:
            return None
        number, unit = _core(rest[: named.start()].rstrip()), unit or found
    if number is None:
        return None
    value = -number.value if negative else number.value
    return Number(value, number.rounded, percent, unit, number.base, ("-" if negative else "") + number.numeral)


def equal_numbers(answer: Number, gold: Number) -> bool:
    """Whether two written numbers are the same answer.

    Exact, but where one is rounded, equal to six decimals (as in math-verify) and to one part in ten thousand.
    A unit, or a base, that only one of them names is taken as understood; units that both name are converted where they
    measure the same, and set aside where they are not in our table. p % equals p/100, and a bare p of 1 or more.
    """
    if answer.base or gold.base:
        return answer.value == gold.value if answer.base and gold.base else _digits(answer) == _digits(gold)
    left, right = answer.value, gold.value
    if answer.unit and gold.unit and answer.unit != gold.unit and answer.unit in _SCALES and gold.unit in _SCALES:
        (dimension, factor), (other, other_factor) = _SCALES[answer.unit], _SCALES[gold.unit]
        if dimension != other:
            return False
        left, right = left * factor, right * other_factor
    rounded = answer.rounded or gold.rounded
    if answer.percent != gold.percent:
        share, plain = (left, right) if answer.percent else (right, left)
        return _close(share / 100, plain, rounded) or (abs(share) >= 1 and _close(share, plain, rounded))
    return _close(left, right, rounded)


def without_units(tidied: str) -> str:
    """The answer without known units after numbers, roots and fractions: what computer algebra is given."""
    return _KNOWN_UNIT.sub("", tidied).strip() or tidied


def _close(left: Fraction, right: Fraction, rounded: bool) -> bool:
    if left == right:
        return True
    return rounded and round(left, 6) == round(right, 6) and abs(left - right) * 10_000 <= max(abs(left), abs(right))


def _digits(number: Number) -> str:
    return number.numeral if number.base else str(number.value)


def _core(text: str) -> Number | None:
    for pattern in _CORES:
        match = pattern.fullmatch(text)
        if match:
            return _read(match.groupdict())
    return None


def _read(part: dict[str, str | None]) -> Number | None:
    if part.get("numeral"):
        base, numeral = int(part["base"] or part["digit"] or 0), part["numeral"] or ""
        if base < 2 or (base != 16 and not numeral[0].isdigit()):
            return None
        try:
            return Number(Fraction(int(numeral, base)), base=base, numeral=numeral.lstrip("0") or "0")
        except ValueError:
            return None
    if part.get("period"):
        whole, fixed, period = part["whole"] or "0", part["fixed"] or "", part["period"] or ""
        repeating = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
        return Number(Fraction(int(whole + fixed), 10 ** len(fixed)) + repeating)
    if "bottom" in part:
        units, top, bottom = int(part["whole"] or 0), int(part["top"] or 0), int(part["bottom"] or 0)
        if bottom == 0 or (part["whole"] and not 0 < top < bottom):
            return None
        return Number(units + Fraction(top, bottom))
    if "exponent" in part:
        exponent = int((part["exponent"] or part.get("digit") or "0").replace(" ", ""))
        return Number(Fraction(part["mantissa"] or "1") * Fraction(10) ** exponent, rounded=part["mantissa"] is not None)
    whole = (part["whole"] or "0").replace(",", "").replace(" ", "")
    digits = part.get("digits") or ""
    return Number(Fraction(whole + digits), rounded=bool(digits))


def _unit(named: re.Match[str]) -> str | None:
    """The unit in the singular; None where the words may change the number or be variables."""
    phrase = named["quoted"] or named["abbreviation"] or named["plain"]
    names = [_singular(word) for word in re.split("[ -]+", phrase.strip())]
    if any(_NO_UNIT.fullmatch(name.lower()) for name in names):
        return None
    if named["plain"] and names[0] not in _SCALES and not (len(names[0]) > 2 and _VOWEL.search(names[0])):
        return None
    return _AREAS.get(named["power"], "") + " ".join(names)


def _singular(word: str) -> str:
    name = word if len(word) <= 2 else word.lower()
    name = _PLURALS.get(name, name)
    return name[:-1] if len(name) > 3 and name.endswith("s") and not name.endswith("ss") else name
