"""The lab's word problems as arithmetic: a person has things, gains, loses or multiplies them, and we ask how many are left.

A chain of steps is a start (3 to 20) and one to six operations (+, −, ×2, ×3; operands 2 to 9) whose results
stay in 1 … max_value. Chains are split by a hash of their arithmetic into disjoint roles, so that what a
benchmark asks can be met neither in pretraining nor in the training problems:

    pretraining   half of all chains: the students' and the reward model's own traces
    training      a quarter: generator seeds that are odd
    held out      a quarter: generator seeds that are even

A one-step chain is an arithmetic fact that every longer chain contains; it is split by its wording instead.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cached_property

from qup.draws import bits

SHE = (
    *("Anna", "Bella", "Clara", "Dora", "Emma", "Fiona", "Grace", "Hanna", "Iris", "Julia", "Karen", "Lily"),
    *("Maya", "Nina", "Olga", "Paula", "Rosa", "Sara", "Tina", "Uma", "Vera", "Wendy", "Yara", "Zoe"),
)
HE = (
    *("Adam", "Ben", "Carl", "David", "Erik", "Frank", "George", "Henry", "Ivan", "Jack", "Kevin", "Leo"),
    *("Mark", "Noah", "Oscar", "Peter", "Ravi", "Sam", "Tom", "Umar", "Victor", "Walter", "Yusuf", "Zack"),
)
ITEMS = (
    *("apples", "pears", "plums", "melons", "lemons", "nuts", "eggs", "cakes", "cookies", "candies", "carrots", "onions"),
    *("books", "pens", "cards", "stamps", "coins", "stickers", "crayons", "maps", "papers", "letters", "tickets", "posters"),
    *("marbles", "balls", "kites", "dolls", "toys", "beads", "buttons", "shells", "stones", "bricks", "blocks", "bottles"),
    *("cups", "plates", "boxes", "baskets", "candles", "flowers", "roses", "seeds", "ribbons", "rings", "keys", "hats"),
)
EVENTS = {
    "+": (
        "buys {b} more",
        "finds {b} more",
        "wins {b} more",
        "collects {b} more",
        "receives {b} more",
        "makes {b} more",
        "picks {b} more",
        "borrows {b} more",
    ),
    "-": ("gives away {b}", "loses {b}", "sells {b}", "drops {b}", "breaks {b}", "returns {b}", "uses {b}", "lends {b}"),
    "*2": ("doubles the {item}", "gets twice as many"),
    "*3": ("triples the {item}", "gets three times as many"),
}
OPENINGS = (
    "{name} has {s} {item} .",
    "{name} starts with {s} {item} .",
    "At first {name} owns {s} {item} .",
    "In the morning {name} has {s} {item} .",
)
SENTENCES = ("{Pron} {event} .", "Then {pron} {event} .", "After that {pron} {event} .", "Later {name} {event} .", "Next {pron} {event} .")
QUESTIONS = (
    "How many {item} does {name} have now ?",
    "How many {item} does {name} have in the end ?",
    "What is the number of {item} that {name} has now ?",
)
WEIGHTS = {"+": 0.36, "-": 0.36, "*2": 0.18, "*3": 0.1}
MIN_START, MAX_START, MIN_OPERAND, MAX_OPERAND = 3, 20, 2, 9


def longest_question(steps: int) -> int:
    """A bound on the words of a question with so many steps; the lab's tokens are words."""
    opening, question = (max(len(text.split()) for text in texts) for texts in (OPENINGS, QUESTIONS))
    event = max(len(text.split()) for texts in EVENTS.values() for text in texts)
    return opening + steps * (max(len(text.split()) for text in SENTENCES) - 1 + event) + question


def _pattern(text: str) -> re.Pattern[str]:
    slots = {"{name}": r"(?P<name>\S+)", "{s}": r"(?P<s>\d+)", "{b}": r"(?P<b>\d+)", "{item}": r"(?P<item>\S+)"}
    return re.compile(re.sub(r"\{\w+\}", lambda slot: slots[slot[0]], text.replace(".", r"\.")))


_READ_EVENT = tuple((_pattern(text), op) for op, texts in EVENTS.items() for text in texts)
_READ_OPENING = tuple(_pattern(text) for text in OPENINGS)


@dataclass(frozen=True)
class Step:
    """One operation: `op` is + − or *, as `+`, `-`, `*`; `event` is its wording in the question."""

    op: str
    operand: int
    event: str

    def apply(self, value: int) -> int:
        return calculate(value, self.op, self.operand)


@dataclass(frozen=True)
class Problem:
    """A word problem as arithmetic."""

    name: str
    item: str
    start: int
    steps: tuple[Step, ...]
    question: str

    @cached_property
    def values(self) -> tuple[int, ...]:
        """The start and each step's result; one entry more than steps."""
        values = [self.start]
        for step in self.steps:
            values.append(step.apply(values[-1]))
        return tuple(values)

    @property
    def answer(self) -> int:
        return self.values[-1]

    @property
    def pronoun(self) -> str:
        return "she" if self.name in SHE else "he"


def calculate(left: int, op: str, right: int) -> int:
    """`left op right` for op `+`, `-`, `*`."""
    return left + right if op == "+" else left - right if op == "-" else left * right


def role_of(problem: Problem) -> str:
    """The one role in which this problem may appear."""
    core = f"{problem.start} " + " ".join(f"{step.op}{step.operand}" for step in problem.steps)
    if len(problem.steps) == 1:
        core = problem.question
    return ("held_out", "training", "pretraining", "pretraining")[bits(0, "role", core) % 4]


def role_of_seed(seed: int) -> str:
    """Odd generator seeds make training problems, even ones held-out problems."""
    return "training" if seed % 2 else "held_out"


def _steps(rng: random.Random, item: str, start: int, length: int, max_value: int) -> tuple[Step, ...] | None:
    value, steps = start, []
    for _ in range(length):
        room = {
            "+": min(MAX_OPERAND, max_value - value) - MIN_OPERAND + 1,
            "-": min(MAX_OPERAND, value - 1) - MIN_OPERAND + 1,
            "*2": int(value * 2 <= max_value),
            "*3": int(value * 3 <= max_value),
        }
        possible = [op for op in WEIGHTS if room[op] > 0]
        if not possible:
            return None
        kind = rng.choices(possible, [WEIGHTS[op] for op in possible])[0]
        operand = int(kind[1]) if len(kind) == 2 else MIN_OPERAND + rng.randrange(room[kind])
        step = Step(kind[0], operand, rng.choice(EVENTS[kind]).format(b=operand, item=item))
        steps.append(step)
        value = step.apply(value)
    return tuple(steps)


def draw(rng: random.Random, role: str, min_steps: int, max_steps: int, max_value: int) -> Problem:
    """A random problem of this role. Draws from `rng` until one fits."""
    while True:
        name, item = rng.choice(SHE + HE), rng.choice(ITEMS)
        start = rng.randint(MIN_START, min(MAX_START, max_value))
        steps = _steps(rng, item, start, rng.randint(min_steps, max_steps), max_value)
        if steps is None:
            continue
        pronoun = "she" if name in SHE else "he"
        sentences = [rng.choice(OPENINGS).format(name=name, s=start, item=item)]
        for step in steps:
            sentences.append(rng.choice(SENTENCES).format(name=name, pron=pronoun, Pron=pronoun.capitalize(), event=step.event))
        sentences.append(rng.choice(QUESTIONS).format(name=name, item=item))
        problem = Problem(name, item, start, steps, " ".join(sentences))
        if role_of(problem) == role:
            return problem


def parse(question: str) -> Problem | None:
    """Reads a question of the lab back into its arithmetic; None for any other text."""
    sentences = [sentence.strip() + " ." for sentence in question.strip().removesuffix("?").split(" . ")]
    if len(sentences) < 3:
        return None
    opening = next((found for pattern in _READ_OPENING if (found := pattern.fullmatch(sentences[0]))), None)
    if opening is None or opening["name"] not in SHE + HE:
        return None
    steps = []
    for sentence in sentences[1:-1]:
        event = next(((match, op) for pattern, op in _READ_EVENT if (match := pattern.search(sentence))), None)
        if event is None:
            return None
        match, op = event
        operand = int(op[1]) if len(op) == 2 else int(match["b"])
        steps.append(Step(op[0], operand, match[0]))
    return Problem(opening["name"], opening["item"], int(opening["s"]), tuple(steps), question)
