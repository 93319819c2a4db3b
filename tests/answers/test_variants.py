"""Each gold answer equals itself in the forms in which models write it, and differs from what only looks like it: a generator of both."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from qup.answers.comparison import compare
from qup.answers.golds import gold
from qup.answers.verifier import CORRECT

DATA = Path(__file__).parents[3] / "shared" / "data"
GOLDS = [r"-2", r"42", r"0.15", r"58,500", r"10,\!080", r"\frac{3}{8}", r"-\frac{24}{25}", r"\frac{1997}{2}", r"\frac9{19}", r"\dfrac{17}{50}", r"137\frac{1}{2}", r"2\sqrt{113}", r"11\sqrt{5}+11", r"\sqrt{51}", r"\frac{3\sqrt{3}}{4}", r"18+2\pi", r"\frac{20000}{\pi}", r"288\pi", r"90^\circ", r"145^\circ", r"204_5", r"4210_{5}", r"6-5i", r"-2+7i", r"1-12i", r"(3,\frac{\pi}{2})", r"(6,31,-1)", r"(15,-29)", r"\left(\frac{3}{2},-13\right)", r"[-2,7]", r"(-\infty,2)\cup(3,\infty)", r"(0,9)\cup(9,36)", r"(\frac{3}{5},\frac{8}{3}]", r"x\in[-2,7]", r"3,5,7", r"1,-2", r"1\pm\sqrt{19}", r"3\pm2\sqrt{2}", r"\{1\pm\sqrt{5},-2\}", r"\begin{pmatrix}-1&0\\0&-1\end{pmatrix}", r"\begin{pmatrix}-1/3\\2/3\\5/3\end{pmatrix}", r"\text{Evelyn}", r"\text{(C)}", r"\text{east}", r"y=2x+3", r"5x-7y+11z+4=0", r"x^3+3x-6", r"(a+5)(b+2)", r"6r^2-4r-24", r"\cot(x)", r"p-q", r"3R^2", r"1.07e16", r"6.02\times10^{23}", r"7.25e-11", r"\frac{1}{4-\omega^{2}}", r"2\pi/\omega", r"\frac{v_{0}}{r_{0}}", r"m_{p}c^{2}(\gamma^{2}-1)", r"\frac{\omega_{d}}{(s+\sigma)^{2}+\omega_{d}^{2}}", r"s^{2}+bs+1", r"\frac{dx}{dt}=kx-a", r"x_{0}\cos(\omega_{0})", r"C_{1}e^{t}+C_{2}e^{-t}", r"\sqrt{4\pi\rho_{0}}", r"E_{1},E_{2}", r"\arcsin(\frac{10}{13})", r"\frac{n(n+1)}{2}", r"2^{n}-1", r"\binom{n}{2}", r"n!", r"\lfloor\frac{n}{2}\rfloor", r"2^{2024}-1", r"\frac{1}{2^{98}}", r"\log_2(3)", r"\ln(2)+1", r"-1+\ln(3)", r"\frac{\sqrt{2}}{2}", r"(2,4)", r"7:32", r"1:\sqrt{3}:2", r"\frac{x^2}{2}+C", r"x\ln(x)-x", r"e^{-2x}", r"\frac{\pi}{6}", r"\tan(2x)", r"2x\cos(x^2)", r"y=e^{2x}", r"x^2+y^2=25", r"\frac{1}{1+x^2}", r"x<3", r"x\ge-1", r"-1<x<2", r"\mathbb{R}", r"\emptyset", r"\infty"]  # fmt: skip
Change = Callable[[str], "str | None"]


def if_matches(pattern: str, replacement: str | Callable[[re.Match[str]], str], whole: bool = False) -> Change:
    """The gold with every match replaced; None where there is none."""

    def change(text: str) -> str | None:
        found = re.fullmatch(pattern, text) if whole else re.search(pattern, text)
        return re.sub(rf"\A(?:{pattern})\Z" if whole else pattern, replacement, text) if found else None

    return change


NUMBER = r"-?\d+(?:\.\d+)?|-?\\d?frac\{\d+\}\{\d+\}|\d*\\sqrt\{\d+\}|\d*\\pi"
FRACTION = r"\\d?frac\{(\d+)\}\{(\d+)\}"


def mixed(match: re.Match[str]) -> str:
    whole, rest = divmod(int(match[1]), int(match[2]))
    return f"{whole}\\frac{{{rest}}}{{{match[2]}}}" if whole and rest else match[0]


def decimal(match: re.Match[str]) -> str:
    value = Fraction(int(match[1]), int(match[2]))
    return str(float(value)) if value.denominator in (2, 4, 5, 8, 10, 20, 25, 50, 100) else match[0]


def grouped(match: re.Match[str]) -> str:
    return f"{int(match[0]):,}"


def turned(text: str) -> str | None:
    """A list or a union the other way round."""
    for sign in ("\\cup", ","):
        if sign in text and (sign == "\\cup" or not re.search(r"[(\[{]|\d,(?:\\!)? ?\d{3}", text)):
            return sign.join(reversed(text.split(sign)))
    return None


SAME: dict[str, Change] = {
    "display fractions": if_matches(r"\\frac", r"\\dfrac"),
    "blanks around signs": if_matches(r"(?<=[\w})])([+=<])(?=[\w\\(])", r" \1 "),
    "a name and an equals sign": if_matches(rf"(?:{NUMBER})", lambda m: f"k={m[0]}", whole=True),
    "a boxed answer": lambda text: f"\\boxed{{{text}}}",
    "dollars and a full stop": lambda text: f"${text}$.",
    "brackets that grow": if_matches(r"(?<!\\left)\((.*?)(?<!\\right)\)", r"\\left(\1\\right)"),
    "a unit in a text macro": if_matches(rf"(?:{NUMBER})", lambda m: f"{m[0]}\\text{{ cm}}", whole=True),
    "a unit as a plain word": if_matches(r"-?\d+(?:\.\d+)?", lambda m: f"{m[0]} meters", whole=True),
    "degrees as a word": if_matches(r"\^\\circ", r"\\text{ degrees}"),
    "degrees left out": if_matches(r"\^\\circ", ""),
    "a degree sign of Unicode": if_matches(r"\^\\circ", "°"),
    "a mixed number": if_matches(FRACTION, mixed, whole=True),
    "a decimal": if_matches(FRACTION, decimal, whole=True),
    "a slash": if_matches(FRACTION, r"\1/\2", whole=True),
    "braces left out": if_matches(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2"),
    "braces around an exponent": if_matches(r"\^(\d)(?!\d)", r"^{\1}"),
    "Unicode minus": if_matches(r"(?<![e_^{])-", "−"),
    "Unicode squares": if_matches(r"\^2(?!\d)|\^\{2\}", "²"),
    "Unicode pi": if_matches(r"\\pi", "π"),
    "Unicode roots": if_matches(r"\\sqrt\{(\d+)\}", r"√\1"),
    "thousands": if_matches(r"(?<![\d.,!_^])\d{4,}(?![\d.])", grouped),
    "braced thousands": if_matches(r"\d{1,3}(?:,(?:\\!)? ?\d{3})+", lambda m: re.sub(r",(?:\\!)? ?", "{,}", m[0]), whole=True),
    "a sign of multiplication": if_matches(r"(?<=\d)(?=\\(?:pi|sqrt))", r"\\cdot "),
    "a star": if_matches(r"(?<![\w{^.])(\d)(?=[a-df-z](?![a-z\d]))", r"\1*"),
    "plain functions": if_matches(r"\\(cos|sin|tan|ln|arcsin|cot)\(", r" \1("),
    "a plain pi": if_matches(r"(?<=[\d*])\\pi(?![a-zA-Z])", "*pi"),
    "another order": turned,
    "Unicode signs": if_matches(
        r"\\(ge|infty|cup|in|mathbb\{R\}|emptyset)(?![a-z])",
        lambda m: dict(zip(("ge", "infty", "cup", "in", "mathbb{R}", "emptyset"), "≥∞∪∈ℝ∅"))[m[1]],
    ),
    "a power of ten as a computer writes it": if_matches(r"\\times10\^\{(\d+)\}", r"e\1"),
    "square brackets of a matrix": if_matches(r"pmatrix", "bmatrix"),
    "thin spaces": if_matches(r",(?=[^\d\s\\])", r",\\ "),
    "bold or upright": if_matches(r"\\text\{", r"\\mathrm{"),
}


def next_digit(match: re.Match[str]) -> str:
    return str((int(match[0]) + 1) % 10)


DIFFERENT: dict[str, Change] = {
    "another last digit": lambda text: re.sub(r"\d(?=\D*$)", next_digit, text) if re.search(r"\d", text) else None,
    "another first digit": lambda text: re.sub(r"\d", next_digit, text, count=1) if re.search(r"\d", text) else None,
    "the other sign": if_matches(r"(?!0$)(?:\d|\\frac|\\sqrt|\\pi|\\ln|e\^|\\cos|n!)[^,=<>&]*", lambda m: f"-({m[0]})", whole=True),
    "one more": if_matches(r"[^,=<>&:]*\d[^,=<>&:]*(?<!\])(?<!\))(?<!i)(?<!\})", lambda m: f"{m[0]}+1", whole=True),
    "a letter in the other case": if_matches(r"(?<![A-Za-z\\{])[xybnrRtskp](?![A-Za-z=])", lambda m: m[0].swapcase()),
    "a prime": if_matches(r"(?<![A-Za-z\\{])([xyrRtskp])(?![A-Za-z_'\^])", r"\1'"),
    "an index": if_matches(r"(?<![A-Za-z\\{])([xyrRtsk])(?![A-Za-z_'\d])", r"\1_2"),
    "an open bracket closed": if_matches(r"\((-?[\d\\][^,]*),([^,]*)\)", r"[\1,\2]", whole=True),
    "top and bottom changed": if_matches(FRACTION, r"\\frac{\2}{\1}", whole=True),
    "coordinates changed": if_matches(r"\(([^,()]+),([^,()]+)\)", r"(\2,\1)", whole=True),
    "one entry fewer": if_matches(r"(-?\d+),.*", r"\1", whole=True),
    "one entry more": if_matches(r"-?\d+(?:,-?\d)+", lambda m: f"{m[0]},77", whole=True),
    "plus for plus or minus": if_matches(r"\\pm", "+"),
    "another base": if_matches(r"_(?:5|\{5\})$", "_7"),
    "another function": if_matches(r"\\(cos|sin|tan|cot)", lambda m: "\\exp" if m[1] != "sin" else "\\cos"),
    "a larger radicand": if_matches(r"\\sqrt\{(\d+)\}", lambda m: f"\\sqrt{{{int(m[1]) + 1}}}"),
    "a higher power": if_matches(r"\^\{?(\d+)\}?(?!\d)", lambda m: f"^{{{int(m[1]) + 1}}}"),
    "twice as much": if_matches(r"(?!0$)(?:\d|\\frac|\\sqrt|\\pi)[^,=<>&:_]*(?<!circ)", lambda m: f"2({m[0]})", whole=True),
    "the relation turned": if_matches(r"<|\\ge", lambda m: ">" if m[0] == "<" else "\\le"),
    "another letter": if_matches(r"(?<![A-Za-z\\{])x(?![A-Za-z])(?!=)", "w"),
    "a percent sign": if_matches(r"(?!0$)-?\d+(?:\.\d+)?", lambda m: f"{float(m[0]) * 7:g}\\%", whole=True),
}
BOUND = ("x<3", "x\\ge-1", "-1<x<2", "x\\in[-2,7]")
"""Golds whose one name may be called otherwise by the rules for sets."""


def shared() -> list[str]:
    if not (DATA / "math500.jsonl").exists():
        return []
    rows = [json.loads(line)["answer"] for line in (DATA / "math500.jsonl").read_text(encoding="utf-8").splitlines()]
    physics = [json.loads(line)["solution"] for line in (DATA / "minerva_math.jsonl").read_text(encoding="utf-8").splitlines()]
    return [*map(str, rows), *(gold(text, "boxed") for text in physics)]


EVERYTHING = sorted({*GOLDS, *shared()})


@pytest.mark.parametrize("rule", SAME)
def test_a_gold_is_itself_in_another_form(rule: str) -> None:
    tried = [(variant, text) for text in EVERYTHING if (variant := SAME[rule](text)) is not None and variant != text]
    assert tried
    wrong = [
        (answer, right)
        for variant, text in tried
        for answer, right in ((variant, text), (text, variant))
        if compare(answer, right) not in CORRECT
    ]
    assert not wrong


@pytest.mark.parametrize("rule", DIFFERENT)
def test_a_gold_is_not_what_looks_like_it(rule: str) -> None:
    bound = BOUND if rule != "the relation turned" else ()
    tried = [
        (variant, text) for text in EVERYTHING if text not in bound and (variant := DIFFERENT[rule](text)) is not None and variant != text
    ]
    assert tried
    wrong = [
        (answer, right)
        for variant, text in tried
        for answer, right in ((variant, text), (text, variant))
        if compare(answer, right) in CORRECT
    ]
    assert not wrong


def test_there_are_enough_rules_and_golds() -> None:
    assert len(SAME) >= 10 and len(DIFFERENT) >= 10
    assert len(set(GOLDS)) > 90
