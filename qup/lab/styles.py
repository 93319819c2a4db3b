"""How a solution is written down in the lab: four styles, each ending in the line `answer : 12`.

native       the students' own: wordy, with fillers, second looks, restarts and stray blank lines
sequential   what the Oracle makes of a trace it refines: numbered steps that name the event
symbolic     how the Oracle writes when it solves from scratch: equations alone
textbook     the data set's own solutions

A solution's arithmetic is its *work*, one Equation a step; `slip` makes work that is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from qup.lab.chains import Problem, calculate

STYLES = ("native", "sequential", "symbolic", "textbook")
ORACLE_STYLES = ("sequential", "symbolic")
PREFIX = {"native": "", "sequential": "given :", "symbolic": "start", "textbook": ""}
"""First words of a style's every trace; put before a response they prompt a student into the style."""

WORDS = {"+": "plus", "-": "minus", "*": "times"}
LARGEST = 99
"""The largest number that has a token."""

OPEN = {
    "native": (
        "okay , so {name} starts with {s} {item} .",
        "let me see . {name} has {s} {item} at first .",
        "alright , we know that {name} begins with {s} {item} .",
        "so we have {s} {item} to start with .",
    ),
    "sequential": ("given : {name} has {s} {item}", "given : {s} {item} at the start"),
    "symbolic": ("start = {s}", "start : {s}"),
    "textbook": ("{name} has {s} {item} .", "At first there are {s} {item} ."),
}
STEP = {
    "native": (
        "then {pron} {event} , so {a} {word} {b} is {r} .",
        "next , {name} {event} . we take {a} {word} {b} , which is {r} .",
        "now {pron} {event} , and that means {a} {word} {b} makes {r} {item} .",
        "after that {pron} {event} , so we get {a} {word} {b} is {r} .",
    ),
    "sequential": ("step {k} : {name} {event} , so {a} {op} {b} = {r}", "step {k} : {event} , so {a} {op} {b} = {r}"),
    "symbolic": ("{a} {op} {b} = {r}", "{a} {op} {b} = {r} ;"),
    "textbook": (
        "When {pron} {event} , the total becomes {a} {op} {b} = {r} .",
        "As {name} {event} , there are {a} {op} {b} = {r} {item} .",
    ),
}
CLOSE = {
    "native": ("so now {name} has {r} {item} .", "that leaves {name} with {r} {item} in total .", "so in the end there are {r} {item} ."),
    "sequential": ("result : {name} has {r} {item}", "result : {r} {item}"),
    "symbolic": (),
    "textbook": ("Therefore {name} has {r} {item} .", "The number of {item} is {r} ."),
}
RETRY = (
    "hmm , {a} {word} {b} is {w} . no wait , {a} {word} {b} is {r} .",
    "so {a} {word} {b} is {w} . wait , that is wrong . {a} {word} {b} is {r} .",
)
CHECK = ("let me check again : {a} {word} {b} is {r} , yes .", "just to check , {a} {word} {b} is {r} .")
FILLER = ("okay .", "hmm , let me think .", "so far so good .")
RATES = {"retry": 0.05, "check": 0.08, "filler": 0.06, "blank": 0.03}


@dataclass(frozen=True)
class Equation:
    """`left op right = result`, true or not; op is `+`, `-` or `*`."""

    left: int
    op: str
    right: int
    result: int

    @property
    def holds(self) -> bool:
        return calculate(self.left, self.op, self.right) == self.result


def true_work(problem: Problem) -> tuple[Equation, ...]:
    values = problem.values
    return tuple(Equation(values[i], step.op, step.operand, values[i + 1]) for i, step in enumerate(problem.steps))


def near(rng: random.Random, value: int) -> int:
    """A wrong number that a slip would give instead of `value`: by one, two or ten."""
    return rng.choice([n for n in (value - 1, value + 1, value - 2, value + 2, value - 10, value + 10) if 0 <= n <= LARGEST])


def slip(problem: Problem, rng: random.Random) -> tuple[Equation, ...]:
    """Work with one mistake (a result, an operation or an operand) that carries through to a wrong answer."""
    while True:
        at, kind = rng.randrange(len(problem.steps)), rng.choice(("result", "op", "operand"))
        work: list[Equation] = []
        value = problem.start
        for index, step in enumerate(problem.steps):
            op, operand = step.op, step.operand
            if index == at and kind == "op":
                op = {"+": "-", "-": "+", "*": "+"}[op]
            if index == at and kind == "operand":
                operand = max(1, operand + rng.choice((-1, 1)))
            result = calculate(value, op, operand)
            if index == at and kind == "result" and 0 <= result <= LARGEST:
                result = near(rng, result)
            work.append(Equation(value, op, operand, result))
            value = result
        if value != problem.answer and all(0 <= equation.result <= LARGEST for equation in work):
            return tuple(work)


def render(
    style: str,
    problem: Problem,
    rng: random.Random,
    work: Sequence[Equation] | None = None,
    *,
    events: Sequence[str] | None = None,
    chatter: float = 1.0,
) -> str:
    """A trace of `problem` in a style, lines joined by newlines. `work` is the arithmetic told; the true one where none.

    `events` words what happens in each equation, the problem's steps where none; `chatter` multiplies RATES.
    """
    work = true_work(problem) if work is None else work
    events = [step.event for step in problem.steps] if events is None else events
    names = {"name": problem.name, "pron": problem.pronoun, "item": problem.item, "s": problem.start}
    step_form = rng.choice(STEP[style])
    lines = [rng.choice(OPEN[style]).format(**names)]
    for index, equation in enumerate(work):
        slots = names | _slots(equation) | {"event": events[index], "k": index + 1}
        if style == "native":
            lines += _native_step(slots, equation, rng, chatter)
        else:
            lines.append(step_form.format(**slots))
    final = work[-1].result
    if CLOSE[style]:
        lines.append(rng.choice(CLOSE[style]).format(**names, r=final))
    lines.append(f"answer : {final}")
    return "\n".join(lines)


def _slots(equation: Equation) -> dict[str, object]:
    return {"a": equation.left, "b": equation.right, "r": equation.result, "op": equation.op, "word": WORDS[equation.op]}


def _native_step(slots: dict[str, object], equation: Equation, rng: random.Random, chatter: float) -> list[str]:
    lines = []
    if rng.random() < chatter * RATES["filler"]:
        lines.append(rng.choice(FILLER))
    if rng.random() < chatter * RATES["retry"]:
        lines.append(rng.choice(RETRY).format(**slots, w=near(rng, equation.result)))
    else:
        lines.append(rng.choice(STEP["native"]).format(**slots))
    if rng.random() < chatter * RATES["check"]:
        lines.append(rng.choice(CHECK).format(**slots))
    if rng.random() < chatter * RATES["blank"]:
        lines.append("")
    return lines
