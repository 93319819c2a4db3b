"""Teachers of the lab: the programmed Oracle with a manner of its own. Everything they say is in the students' vocabulary.

A manner is a style, how much is talked beside the steps, the grain of the steps, whether the result comes first, and
how often a told result is untrue though the answer is right.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from qup.config.schema import LabOracle
from qup.lab.chains import Problem, calculate
from qup.lab.styles import CLOSE, LARGEST, WORDS, Equation, near, render
from qup.lab.traces import equations

HALF = 5
"""With grain fine an operand above this is told in two: this much, then the rest."""


def solution(problem: Problem, work: Sequence[Equation], cfg: LabOracle, rng: random.Random) -> str:
    """A teacher's trace that tells `work` in its own manner."""
    events = [step.event for step in problem.steps]
    if cfg.grain == "coarse":
        work, events = work[-1:], events[-1:]
    elif cfg.grain == "fine":
        told = [(part, event) for equation, event in zip(work, events, strict=True) for part in halves(equation)]
        work, events = [part for part, _ in told], [event for _, event in told]
    if cfg.slip_rate and rng.random() < cfg.slip_rate:
        work = untrue(work, rng)
    text = render(cfg.style, problem, rng, work, events=events, chatter=cfg.chatter)
    if cfg.result_first:
        closing = rng.choice(CLOSE[cfg.style] or CLOSE["native"])
        text = closing.format(name=problem.name, item=problem.item, r=work[-1].result) + "\n" + text
    return text


def halves(equation: Equation) -> list[Equation]:
    """A true equation as smaller ones that come to the same; one that is untrue, or small, as it is."""
    left, right = equation.left, equation.right
    if not equation.holds or (equation.op != "*" and right <= HALF):
        return [equation]
    parts = [left] * (right - 1) if equation.op == "*" else [HALF, right - HALF]
    op = "+" if equation.op == "*" else equation.op
    made = []
    for part in parts:
        made.append(Equation(left, op, part, calculate(left, op, part)))
        left = made[-1].result
    return made


def untrue(work: Sequence[Equation], rng: random.Random) -> list[Equation]:
    """The work with one told result made wrong, and nothing after it changed: never the last one, which is the answer.

    Work of one equation gets an operand that does not belong there.
    """
    told = list(work)
    if len(told) == 1:
        told[0] = replace(told[0], left=min(LARGEST, told[0].left + rng.choice((1, 2, 10))))
    else:
        at = rng.randrange(len(told) - 1)
        told[at] = replace(told[at], result=near(rng, told[at].result))
    return told


def continuation(problem: Problem, work: Sequence[Equation], begun: str) -> str:
    """How a solution goes on that others began: the sentence is finished, then the rest told in the students' manner.

    Numbers are those of `work`, whatever was said before; what `begun` tells of it already is not told again.
    """
    told = 0
    for equation in equations(begun):
        told += told < len(work) and equation == work[told]
    line = begun.rpartition("\n")[2]
    sentence = re.split(r"[.?!] |[.?!]$", line)[-1].strip()
    final = work[-1].result
    if sentence.startswith("answer"):
        return f" {final}"
    pieces = []
    if "\n" not in begun and sentence:
        pieces.append(f" {problem.start} {problem.item} .")
    elif sentence and told < len(work):
        pieces.append(f" {_said(work[told])} .")
        told += 1
    elif sentence:
        pieces.append(f" {final} {problem.item} .")
    if not begun:
        pieces.append(f"so we have {problem.start} {problem.item} to start with .")
    pieces += [f"so {_said(equation)} ." for equation in work[told:]]
    pieces.append(f"answer : {final}")
    whole = "\n".join(pieces)
    return whole if sentence or not begun or begun.endswith("\n") else "\n" + whole


def _said(equation: Equation) -> str:
    return f"{equation.left} {WORDS[equation.op]} {equation.right} is {equation.result}"
