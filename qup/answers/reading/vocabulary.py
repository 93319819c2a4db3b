"""The names that the reader of expressions knows: functions, accents, Greek letters, signs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, TypeAlias

Node: TypeAlias = tuple[Any, ...]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = _names(
    "sin cos tan cot sec csc sinh cosh tanh coth sech csch arcsin arccos arctan arccot arcsec arccsc arcsinh arccosh arctanh"
    " ln log lg exp cis sgn gcd lcm max min det Re Im"
)
ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "cosec": "csc", "tg": "tan", "ctg": "cot", "arctg": "arctan",
    "arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "Ln": "ln",
}  # fmt: skip
INVERSE = {name: f"arc{name}" for name in _names("sin cos tan cot sec csc sinh cosh tanh coth sech csch")}
ACCENTS = _names("vec hat bar tilde overline widehat widetilde overrightarrow overleftarrow underline mathcal mathbb mathscr mathfrak")
"""Macros that make another name of a name."""
STYLES = _names("mathbf boldsymbol bm bf pmb mathrm rm mathit mathsf boldmath operatorname textnormal")
"""Macros that leave a name what it is."""
LETTERS = _names(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma varsigma tau upsilon"
    " phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell partial nabla aleph"
    " ldots cdots dots odot circ star oplus otimes perp parallel dagger angle triangle prime"
)
TIMES = ("\\times", "\\cdot", "*", "\\ast", "\\bullet")
DIVIDED = ("/", "\\div")
CONSTANTS: dict[str, Node] = {"pi": ("const", "pi"), "infinity": ("const", "oo"), "infty": ("const", "oo"), "inf": ("const", "oo")}
DEGREE_FACTOR: Node = ("mul", ("const", "pi"), ("num", Fraction(1, 180)))
