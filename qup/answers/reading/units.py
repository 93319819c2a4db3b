"""Units of measurement as people write them beside a number: what they measure and how large they are, exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_MEASURES: dict[str, dict[str, str]] = {
    "m": {
        "nm nanometer": "1e-9", "\\mum micrometer micron": "1e-6", "mm millimeter": "1e-3", "cm centimeter": "1e-2", "dm decimeter": "1e-1",
        "m meter": "1", "km kilometer": "1000", "in inch": "0.0254", "ft foot": "0.3048", "yd yard": "0.9144", "mi mile": "1609.344",
        "ly lightyear light-year": "9460730472580800", "au AU": "149597870700",
    },
    "g": {
        "\\mug microgram": "1e-6", "mg milligram": "1e-3", "g gm gram": "1", "kg kilogram kilo": "1000", "t tonne": "1e6",
        "oz ounce": "28.349523125", "lb lbs pound": "453.59237",
    },
    "s": {
        "ns nanosecond": "1e-9", "\\mus microsecond": "1e-6", "ms millisecond": "1e-3", "s sec second": "1", "min minute": "60",
        "h hr hour": "3600", "day": "86400", "week": "604800",
    },
    "month": {"month": "1", "yr year": "12", "decade": "120", "century": "1200"},
    "A": {"mA milliampere milliamp": "1e-3", "A ampere amp": "1"},
    "K": {"K kelvin": "1"},
    "mol": {"mol mole": "1"},
    "cd": {"cd candela": "1"},
    "dollar": {"cent \\cent ¢": "1/100", "dollar USD buck": "1"},
    "euro": {"euro EUR": "1"}, "sterling": {"sterling GBP quid": "1"}, "yen": {"yen JPY": "1"}, "rupee": {"rupee INR Rs": "1"},
    "deg": {"degree deg": "1", "arcminute": "1/60", "arcsecond": "1/3600"}, "rad": {"rad radian": "1"},
    "C": {"\\degC celsius": "1"}, "F": {"\\degF fahrenheit": "1"},
    "bit": {"bit": "1", "byte": "8"},
    "person": {"person people": "1"},
    "m3": {"ml mL milliliter": "1e-6", "cl cL centiliter": "1e-5", "l L liter": "1e-3", "gal gallon": "0.003785411784"},
    "m s-1": {"mph": "0.44704", "kph kmh kmph": "5/18"},
    "s-1": {"Hz hertz": "1", "kHz kilohertz": "1000", "MHz megahertz": "1e6", "GHz gigahertz": "1e9"},
    "g m s-2": {"N newton": "1000", "kN kilonewton": "1e6", "dyn dyne": "0.01"},
    "g m2 s-2": {
        "J joule": "1000", "kJ kilojoule": "1e6", "MJ megajoule": "1e9", "erg": "1e-4", "cal calorie": "4184", "kcal kilocalorie": "4184000",
        "eV electronvolt": "1.602176634e-16", "keV": "1.602176634e-13", "MeV": "1.602176634e-10", "GeV": "1.602176634e-7", "kWh": "3.6e9",
    },
    "g m2 s-3": {"W watt": "1000", "kW kilowatt": "1e6", "MW megawatt": "1e9", "mW milliwatt": "1"},
    "g m-1 s-2": {"Pa pascal": "1000", "kPa kilopascal": "1e6", "atm atmosphere": "101325000", "bar": "1e8"},
    "g m2 s-3 A-1": {"V volt": "1000", "kV kilovolt": "1e6", "mV millivolt": "1"},
    "g m2 s-3 A-2": {"\\Omega ohm": "1000"},
    "A s": {"coulomb": "1"},
    "g s-2 A-1": {"tesla": "1000"},
}  # fmt: skip
_IRREGULAR = {
    "inches": "inch", "feet": "foot", "litre": "liter", "litres": "liter", "metre": "meter", "metres": "meter", "centimetre": "centimeter",
    "centimetres": "centimeter", "kilometre": "kilometer", "kilometres": "kilometer", "millimetre": "millimeter", "mins": "min",
    "millimetres": "millimeter", "secs": "sec", "hrs": "hr", "yrs": "yr", "centuries": "century", "lbs": "lb", "kgs": "kg", "cms": "cm",
    "persons": "person",
}  # fmt: skip
_DROPPED = {"unit", "units"}
"""Words that say that there is a unit, and not which."""
ALONE = frozenset(["m", "g", "s", "h", "L", "l", "N", "J", "W", "V", "K"])
"""Single letters that are units after a number and a blank in plain text; others are taken for variables."""
_PRODUCTS = frozenset(["mg", "ms", "cd", "cl", "ly", "au", "nm", "ns", "gm", "mi", "mA", "mW", "mV", "cal", "erg"])
"""Units that in plain text may as well be a product of variables."""
NO_UNIT = re.compile(
    r"and|or|to|of|plus|minus|times|over|by|mod|dozen|pair|score|hundred|thousand|million|billion|trillion|percent|percentage|per cent|pct"
    r"|alpha|beta|gamma|delta|theta|lambda|mu|sigma|omega|phi|rho|pi|sqrt|root|sin|cos|tan|log|ln|exp|more|less|fewer|than|below|above"
    r"|negative|squared|cubed|factorial|not|base|at|least|most|half|halves|quarters?|thirds?|infinity|point|is|are|if|when|where|for|with"
    r"|mean|even|odd|prime|integers?|approximately|about|between|from|until|either|neither|each|both|all|but|except"
    r"|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|[a-z]+teen|[a-z]+tie|hundred|thousand|million|billion)ths?"
)
_PART = re.compile(r" *(?:(/|\bper\b|\*|\\cdot\b|\\times\b)|(\()|(\))|(\\?[A-Za-z¢]+(?:-[A-Za-z]+)*)\.?|\^ ?\{? ?(-?[0-9]) ?\}?) *")
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}


def _known() -> dict[str, tuple[dict[str, int], Fraction]]:
    found: dict[str, tuple[dict[str, int], Fraction]] = {}
    for dimension, names in _MEASURES.items():
        parts = [re.fullmatch(r"([a-zA-Z]+?)(-?[0-9])?", part) for part in dimension.split()]
        powers = {part[1]: int(part[2] or 1) for part in parts if part}
        for aliases, size in names.items():
            found |= dict.fromkeys(aliases.split(), (powers, Fraction(size)))
    return found


_SIZES = _known()


@dataclass(frozen=True)
class Unit:
    """A unit: its dimension (powers of base units) and size where every name in it is known, else its words alone."""

    dimension: tuple[tuple[str, int], ...] = ()
    size: Fraction | None = None
    words: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        return self.size is not None


RADIAN = Unit((("rad", 1),), Fraction(1), ("rad",))
ORDINAL = Unit(words=("ordinal",))
DEGREE = Unit((("deg", 1),), Fraction(1), ("degree",))
CURRENCIES = {"$": "dollar", "\\$": "dollar", "£": "sterling", "\\pounds": "sterling", "€": "euro", "\\euro": "euro", "¥": "yen"}


def read_unit(text: str, *, spaced: bool, quoted: bool) -> Unit | None:
    """The unit that `text` names; None where it may be a variable, or words that change the number.

    `spaced`: a blank parts it from the number; `quoted`: it stands in `\\text{}` or `\\mathrm{}`, where one letter is a unit.
    """
    powers, size, words, known = dict[str, int](), Fraction(1), list[str](), True
    position, sign, depth, ahead, last = 0, 1, 0, 1, ("", 1)
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            return None
        position = part.end()
        if part[1]:
            sign = -1 if part[1] in ("/", "per") else 1 if depth == 0 else sign
            if part[1] in ("/", "per"):
                words.append("per")
        elif part[2]:
            depth += 1
        elif part[3]:
            depth -= 1
        elif part[4]:
            name = part[4]
            if name.lower() in _POWERS and name.lower() not in ("squared", "cubed"):
                ahead = _POWERS[name.lower()]
                continue
            if name.lower() in ("squared", "cubed") and last[0]:
                size *= _raise(powers, last, _POWERS[name.lower()] - 1)
                continue
            single = singular(name)
            if len(name) == 1 and not quoted and not ((spaced or ahead > 1) and name in ALONE and (not words or "per" in words)):
                return None
            if NO_UNIT.fullmatch(single.lower()) or NO_UNIT.fullmatch(name.lower()):
                return None
            if single in _DROPPED:
                continue
            words.append(single)
            if single in _SIZES:
                last = (single, sign * ahead)
                size *= _raise(powers, (single, 1), sign * ahead)
            else:
                known, last = False, ("", 1)
                words += [f"^{ahead}"] * (ahead != 1)
            ahead, sign = 1, (sign if depth else 1)
        elif part[5]:
            if not last[0]:
                words.append(f"^{part[5]}")
                continue
            size *= _raise(powers, last, int(part[5]) - 1)
    dimension = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Unit(dimension, size if known and words else None, tuple(words))


def _raise(powers: dict[str, int], unit: tuple[str, int], times: int) -> Fraction:
    """Multiplies a known unit in `times` more times; returns the factor."""
    dimension, factor = _SIZES[unit[0]]
    count = unit[1] * times
    for name, power in dimension.items():
        powers[name] = powers.get(name, 0) + power * count
    return factor**count


def singular(word: str) -> str:
    """A unit's name in the singular; abbreviations keep their case."""
    if word in _SIZES:
        return word
    name = word if len(word) <= 2 else word.lower()
    name = _IRREGULAR.get(name, name)
    if name in _SIZES:
        return name
    if len(name) > 3 and name.endswith("s") and not name.endswith("ss"):
        return name[:-1]
    return name


def looks_plain(word: str, spaced: bool) -> bool:
    """Whether a plain word of two letters or more after a number is a noun or a known unit, and not a product of variables."""
    name = singular(word)
    if name in _SIZES and word not in _PRODUCTS:
        return True
    return name in _DROPPED or (spaced and len(word) > 3 and re.search("[aeiouyAEIOUY]", name) is not None)


def same_unit(answer: Unit | None, gold: Unit | None) -> Fraction | None:
    """The factor that turns the answer's figures into the gold answer's; None where they measure different or unknown things.

    A unit that only one of the two names is taken as understood. Unknown words agree where one side's are among the other's.
    """
    if answer is None or gold is None or not answer.words or not gold.words:
        return Fraction(1)
    if answer.size is not None and gold.size is not None:
        return answer.size / gold.size if answer.dimension == gold.dimension else None
    mine, theirs = set(answer.words), set(gold.words)
    return Fraction(1) if "per" not in mine ^ theirs and (mine <= theirs or theirs <= mine) else None
