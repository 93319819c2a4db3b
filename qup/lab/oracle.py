"""The programmed Oracle: reads the same messages as a paid one, and answers by rule.

It solves problems with arithmetic, edits the student's own trace where one is given, writes in styles of its own
(sequential when it refines, and when it solves from scratch the one its settings name, see teachers.py), and is wrong or refuses at stated rates. As a judge
it compares content by overlap.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from qup.config.schema import LabOracle as Settings
from qup.draws import bits, uniform
from qup.lab.chains import Problem, parse
from qup.lab.styles import Equation, slip, true_work
from qup.lab.teachers import continuation, solution
from qup.lab.traces import EQUATION, equations, repaired

VERSION = 1
REFUSAL = "I am sorry , but I cannot help with this problem ."
Share = Callable[[set[Any], set[Any]], float]
TRIALS = ("wait", "hmm", "check")


def _tag(text: str, name: str) -> str:
    found = re.search(rf"<{name}[^>]*>\n?(.*?)\n?</{name}>", text, re.DOTALL)
    return found[1] if found else ""


def _labelled(text: str) -> list[tuple[str, str]]:
    return re.findall(r'<solution id="([^"]+)">\n?(.*?)\n?</solution>', text, re.DOTALL)


class LabOracle:
    """Answers a conversation; a function of its arguments."""

    @staticmethod
    def answer(messages: Sequence[dict[str, str]], *, seed: int, attempt: int, cfg: Settings) -> dict[str, Any]:
        """A chat completion as an HTTP Oracle returns it; tokens are words."""
        begun = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        system, user = messages[0]["content"], messages[1 if begun else -1]["content"]
        task = system.splitlines()[0].removeprefix("Task:").strip()
        text = _respond(task, user, seed, attempt, cfg, begun)
        read = sum(len(message["content"].split()) for message in messages)
        return {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": read, "completion_tokens": len(text.split())},
        }


def _respond(task: str, user: str, seed: int, attempt: int, cfg: Settings, begun: str) -> str:
    if task == "judge":
        return json.dumps(_ratings(_tag(user, "reference"), _tag(user, "solution"), _kept))
    if task == "judge_symmetric":
        solutions = [text for _, text in _labelled(user)] or re.findall(r"<solution>\n?(.*?)\n?</solution>", user, re.DOTALL)
        return json.dumps(_ratings(solutions[0], solutions[1], _overlap))
    if task == "rank":
        reference = _tag(user, "reference")
        order = sorted(_labelled(user), key=lambda entry: (-_similarity(reference, entry[1]), entry[0]))
        return json.dumps({"ranking": [label for label, _ in order]})
    question, given = _tag(user, "problem"), _tag(user, "solution")
    problem = parse(question)
    labels = (task, question, given, attempt)
    if problem is None or uniform(seed, "refuse", *labels) < cfg.refuse_rate:
        return REFUSAL
    rng = random.Random(bits(seed, "style", *labels))
    work = slip(problem, rng) if uniform(seed, "error", *labels) < cfg.error_rate else true_work(problem)
    if task == "cooperate":
        return continuation(problem, work, begun)
    if task == "synthesize":
        return solution(problem, work, cfg, rng)
    lines = repaired(given, work)
    return "\n".join(lines if task == "style_aligned" else _restyled(lines, problem, work))


def _restyled(lines: Sequence[str], problem: Problem, work: Sequence[Equation]) -> list[str]:
    """The repaired trace with transitions and layout tidied: numbered steps; fillers and second looks are gone."""
    tidy = [f"given : {problem.name} has {problem.start} {problem.item}"]
    told = 0
    for line in lines:
        if not EQUATION.search(line) or told == len(work):
            continue
        equation = work[told]
        told += 1
        step = problem.steps[min(told, len(problem.steps)) - 1]
        who = f"{problem.name} " if problem.name in line.split() else ""
        tidy.append(f"step {told} : {who}{step.event} , so {equation.left} {equation.op} {equation.right} = {equation.result}")
    return [*tidy, f"result : {problem.name} has {work[-1].result} {problem.item}", f"answer : {work[-1].result}"]


def _overlap(a: set[Any], b: set[Any]) -> float:
    """Share of what either holds that both hold; 1 where both are empty."""
    return len(a & b) / len(a | b) if a | b else 1.0


def _kept(reference: set[Any], other: set[Any]) -> float:
    """Share of the reference's that the other holds; 1 where the reference is empty."""
    return len(reference & other) / len(reference) if reference else 1.0


def _aspects(a: str, b: str, share: Share) -> dict[str, float]:
    words_a, words_b = ({word for word in text.split() if word.isalpha() and len(word) > 3} for text in (a, b))
    said_a, said_b = set(equations(a)), set(equations(b))
    trials_a, trials_b = ({(word, i) for word in TRIALS for i in range(text.split().count(word))} for text in (a, b))
    starts_a, starts_b = (set(re.findall(r"\d+ [a-z]+", text)) for text in (a, b))
    return {
        "definitions": share(starts_a, starts_b),
        "equations": share(said_a, said_b),
        "assumptions": share(words_a, words_b),
        "trial_steps": share(trials_a, trials_b),
    }


def _ratings(a: str, b: str, share: Share) -> dict[str, int]:
    shares = _aspects(a, b, share)
    ratings = {name: 1 + round(4 * share) for name, share in shares.items()}
    return ratings | {"overall": 1 + round(4 * sum(shares.values()) / len(shares))}


def _similarity(a: str, b: str) -> float:
    return sum(_aspects(a, b, _overlap).values())
