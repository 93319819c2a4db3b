"""Derivatives are names: \\frac{dx}{dt} is x~t1, \\frac{d^2x}{dt^2} is x~t2, \\partial one is x~∂t1."""

from __future__ import annotations

import re

from qup.answers.reading.tokens import Group, Item, literal

_ABOVE = re.compile(
    r"(?:d|\\partial)(?:\^\{?(?P<order>[0-9])\}?)?(?P<name>(?:\\?[A-Za-z]+|\([A-Za-z]+\))(?:_(?:\{[^{}]*\}|\w|\\[a-z]+))?'*(?:\([A-Za-z]\))?)?"
)


_BELOW = re.compile(r"(?:d|\\partial)(?P<name>(?:\\[A-Za-z]+|[A-Za-z])(?:_(?:\{[^{}]*\}|\w))?)(?:\^\{?(?P<order>[0-9])\}?)?")


def derivative_of(top: Item, bottom: Item) -> tuple[str, str] | None:
    """(name, variable with the order) of \\frac{dx}{dt} and its kind, the name "" in \\frac{d}{dt}; None for other fractions."""
    above, below = (literal(item.items) if isinstance(item, Group) else literal((item,)) for item in (top, bottom))
    up, down = _ABOVE.fullmatch(above), _BELOW.fullmatch(below)
    if not up or not down or (up["order"] or "1") != (down["order"] or "1"):
        return None
    if above.startswith("\\partial") != below.startswith("\\partial"):
        return None
    name = re.sub(r"_\{([^{}]*)\}", r"_\1", up["name"] or "").removesuffix(f"({down['name']})")
    mark = "∂" if above.startswith("\\partial") else ""
    return name, f"{mark}{down['name']}{up['order'] or 1}"
