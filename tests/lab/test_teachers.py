"""The lab's teachers: right answers in manners of their own, in the students' words."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from qup.config.compose import Composer
from qup.config.schema import LabOracle, LabProblems, Oracle
from qup.lab.oracle import LabOracle as Programmed
from qup.lab.styles import Equation, true_work
from qup.lab.teachers import halves, solution, untrue
from qup.lab.tokenizer import vocabulary
from qup.lab.traces import equations, stated_answer
from qup.lab.world import generate
from qup.text.prompts import fill, oracle_prompts

NAMES = ("native", "chatty", "steps", "symbols", "textbook", "fine", "coarse", "hasty", "sloppy")
PROBLEMS = list(generate(LabProblems(n=60, max_steps=4)))


@pytest.fixture(scope="module")
def teachers() -> dict[str, LabOracle]:
    cell = Composer.over().cell([f"teacher=[{','.join(f'lab_{name}' for name in NAMES)}]", "source=oracle"])
    return {name: cell.teacher[f"lab_{name}"].lab for name in NAMES}


def traces(cfg: LabOracle) -> list[str]:
    return [solution(problem, true_work(problem), cfg, random.Random(i)) for i, problem in enumerate(PROBLEMS)]


@pytest.mark.parametrize("name", NAMES)
def test_every_teacher_answers_right_in_words_that_students_have(teachers: dict[str, LabOracle], name: str) -> None:
    known = set(vocabulary())
    for problem, text in zip(PROBLEMS, traces(teachers[name]), strict=True):
        assert stated_answer(text) == problem.answer
        assert set(text.replace("\n", " ").split()) <= known


def test_teachers_differ_in_what_they_are_named_for(teachers: dict[str, LabOracle]) -> None:
    said = {name: traces(cfg) for name, cfg in teachers.items()}
    words = {name: sum(len(text.split()) for text in own) for name, own in said.items()}
    told = {name: sum(len(equations(text)) for text in own) for name, own in said.items()}
    assert words["symbols"] < words["coarse"] < words["native"] < words["chatty"]
    assert len(PROBLEMS) <= told["coarse"] < told["steps"] < told["fine"]
    assert all(str(problem.answer) in text.split("\n")[0].split() for problem, text in zip(PROBLEMS, said["hasty"], strict=True))
    untrue_ones = {name: sum(not all(one.holds for one in equations(text)) for text in own) for name, own in said.items()}
    assert 0 < untrue_ones["sloppy"] < len(PROBLEMS)
    assert untrue_ones["steps"] == untrue_ones["symbols"] == untrue_ones["textbook"] == 0


def test_halves_come_to_the_same() -> None:
    for problem in PROBLEMS:
        for equation in true_work(problem):
            parts = halves(equation)
            assert all(part.holds for part in parts)
            assert (parts[0].left, parts[-1].result) == (equation.left, equation.result)
            assert all(after.left == before.result for before, after in itertools.pairwise(parts))
    wrong = Equation(3, "*", 3, 8)
    assert halves(wrong) == [wrong]


def test_an_untrue_result_leaves_the_answer() -> None:
    work = true_work(next(problem for problem in PROBLEMS if len(problem.steps) > 1))
    told = untrue(work, random.Random(0))
    assert told[-1].result == work[-1].result
    assert sum(not equation.holds for equation in told) == 1


def test_the_default_manner_answers_as_it_always_did() -> None:
    """Recorded before there were manners."""
    question = "Anna has 5 apples . She buys 4 more . Then she doubles the apples . How many apples does Anna have now ?"
    messages = fill(oracle_prompts(Oracle())["synthesize"], problem=question, extraction="lab")
    answer: Callable[..., dict] = Programmed.answer
    text = answer(messages, seed=0, attempt=0, cfg=LabOracle(error_rate=0.0, refuse_rate=0.0))["choices"][0]["message"]["content"]
    assert text == "start : 5\n5 + 4 = 9 ;\n9 * 2 = 18 ;\nanswer : 18"
