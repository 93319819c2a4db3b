"""Unicode as the LaTeX that it stands for, so that one reader serves both. Nothing that tells answers apart is dropped."""

from __future__ import annotations

import re
import unicodedata

_SIGNS = {
    "−–‐‑‒﹣－": "-",
    "＋": "+",
    "×✕✖": "\\times ",
    "·⋅∙•・": "\\cdot ",
    "÷⁄∕": "/",
    "∞": "\\infty ",
    "°º˚": "^\\circ ",
    "≤⩽≦": "\\le ",
    "≥⩾≧": "\\ge ",
    "≠": "\\ne ",
    "≈≃≅": "\\approx ",
    "≡": "\\equiv ",
    "∈": "\\in ",
    "∪⋃": "\\cup ",
    "∩": "\\cap ",
    "∖": "\\setminus ",
    "∅⌀": "\\emptyset ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "√": "\\sqrt ",
    "∛": "\\sqrt[3]",
    "∜": "\\sqrt[4]",
    "∠": "\\angle ",
    "∣": "|",
    "⟨〈": "\\langle ",
    "⟩〉": "\\rangle ",
    "…⋯": "\\ldots ",
    "→": "\\to ",
    "∂": "\\partial ",
    "∑": "\\sum ",
    "∏": "\\prod ",
    "∫": "\\int ",
    "⊙": "\\odot ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "ℚ": "\\mathbb{Q}",
    "ℕ": "\\mathbb{N}",
    "ℂ": "\\mathbb{C}",
    "′’": "'",
    "″": "''",
    "“”": '"',
    "\u200b\u200c\u200d\u2060\ufeff\u200e\u200f": "",
    "ϕ": "\\phi ",
    "ϵ": "\\epsilon ",
    "µ": "\\mu ",
    "ℏ": "\\hbar ",
}
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta",
    "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_TABLE = str.maketrans(
    {sign: latex for signs, latex in _SIGNS.items() for sign in signs} | {letter: f"\\{name} " for letter, name in _GREEK.items()}
)
_SUPER, _SUB = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢₖₓ"
_LOW = str.maketrans(_SUPER + _SUB, "0123456789+-=()nix" + "0123456789+-=()nikx")
_SHIFTED = re.compile(f"([{_SUPER}]+)|([{_SUB}]+)")
_VULGAR = re.compile("[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒]")
_BARE_ROOT = re.compile(r"([√∛∜]) ?([0-9]+(?:\.[0-9]+)?|[A-Za-zπ])")


def plain(text: str) -> str:
    """The text in ASCII and LaTeX where there is such a form; full-width characters as ordinary ones."""
    if text.isascii():
        return text
    text = _BARE_ROOT.sub(r"\1{\2}", text)
    text = _SHIFTED.sub(lambda m: f"{'^' if m[1] else '_'}{{{m[0].translate(_LOW)}}}", text)
    text = _VULGAR.sub(lambda m: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", m[0]).split("⁄")), text)
    return unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
