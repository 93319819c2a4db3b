"""The lab's problem sets: made by a generator, the same for the same settings on any machine.

Training problems have odd seeds and benchmarks even ones: what the two may contain is disjoint by
construction (see chains.py), and neither meets what the students and the reward model were pretrained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from qup.config.schema import LabProblems
from qup.draws import bits
from qup.errors import InputError
from qup.lab.chains import Problem, draw, parse, role_of_seed
from qup.lab.styles import render

__all__ = ["generate", "parse", "plentiful", "problems"]


def generate(cfg: LabProblems) -> Iterator[Problem]:
    """The problems of a configuration, in order: a larger n only adds at the end.

    Raises InputError where so many different ones cannot be found.
    """
    if cfg.min_steps > cfg.max_steps:
        raise InputError(f"lab problems: min_steps={cfg.min_steps} is above max_steps={cfg.max_steps}")
    rng = random.Random(bits(cfg.seed, "problems", cfg.min_steps, cfg.max_steps, cfg.max_value))
    role, repeats = role_of_seed(cfg.seed), 0
    seen: set[str] = set()
    while len(seen) < cfg.n:
        problem = draw(rng, role, cfg.min_steps, cfg.max_steps, cfg.max_value)
        if problem.question in seen:
            repeats += 1
            if repeats > 1000 + 10 * cfg.n:
                raise InputError(
                    f"lab problems: n={cfg.n} with max_steps={cfg.max_steps}, max_value={cfg.max_value}: only {len(seen)} different ones exist"
                )
            continue
        seen.add(problem.question)
        yield problem


def plentiful(cfg: LabProblems) -> bool:
    """Whether there surely are more different problems than asked for, without drawing them."""
    return cfg.min_steps <= cfg.max_steps and cfg.max_steps >= 2 and cfg.max_value >= 50 and cfg.n <= 5000


def problems(cfg: LabProblems) -> list[dict[str, str]]:
    """Rows of the PROBLEMS table: problem_id, question, answer, and the data set's own worked solution."""
    rows = []
    for index, problem in enumerate(generate(cfg)):
        rng = random.Random(bits(cfg.seed, "solution", problem.question))
        text = render("textbook", problem, rng)
        rows.append(
            {"problem_id": f"lab-{cfg.seed}-{index:05d}", "question": problem.question, "answer": str(problem.answer), "solution": text}
        )
    return rows
