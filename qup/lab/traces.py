"""Reading a lab trace, whatever its style: the equations it states, line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qup.lab.styles import Equation

OPS = {"plus": "+", "minus": "-", "times": "*", "+": "+", "-": "-", "*": "*"}
EQUATION = re.compile(r"(\d+) (plus|minus|times|\+|-|\*) (\d+) (, which is|is|makes|=) (\d+)")
ANSWER = re.compile(r"^answer : (\d+)\s*$", re.MULTILINE)


def equations(text: str) -> list[Equation]:
    """Every `a op b = r` that the text states, in order, true or not."""
    return [Equation(int(m[1]), OPS[m[2]], int(m[3]), int(m[5])) for m in EQUATION.finditer(text)]


def stated_answer(text: str) -> int | None:
    """The number on the last answer line."""
    found = ANSWER.findall(text)
    return int(found[-1]) if found else None


def with_last_equation(line: str, equation: Equation) -> str:
    """The line with its last equation made to say `equation`, in the line's own words."""
    found = list(EQUATION.finditer(line))[-1]
    words = {OPS[word]: word for word in ("plus", "minus", "times")} if found[2] in ("plus", "minus", "times") else {op: op for op in "+-*"}
    said = f"{equation.left} {words[equation.op]} {equation.right} {found[4]} {equation.result}"
    return line[: found.start()] + said + line[found.end() :]


def repaired(text: str, work: Sequence[Equation]) -> list[str]:
    """The trace line by line with its steps made to tell `work`: each line keeps its words, numbers and operations are mended.

    A line that repeats the step before it (a check) keeps doing so; steps too many are left out, missing ones are
    written like the step before them.
    """
    lines: list[str] = []
    step, last = 0, -1
    for line in text.split("\n"):
        told = equations(line)
        if not told:
            lines.append(line)
            continue
        said = (told[-1].left, told[-1].op, told[-1].right)
        if step and (step == len(work) or said != key(work[step])) and said == key(work[step - 1]):
            lines.append(with_last_equation(line, work[step - 1]))
        elif step < len(work):
            lines.append(with_last_equation(line, work[step]))
            step += 1
        else:
            continue
        last = len(lines) - 1
    for missing in work[step:]:
        model = lines[last] if last >= 0 else "so 1 plus 1 is 2 ."
        lines.insert(last + 1, with_last_equation(model, missing))
        last += 1
    final = work[-1].result
    for at in range(len(lines)):
        if ANSWER.match(lines[at]):
            lines[at] = f"answer : {final}"
        elif at > last and len(re.findall(r"\d+", lines[at])) == 1:
            lines[at] = re.sub(r"\d+", str(final), lines[at])
    if not ANSWER.search("\n".join(lines)):
        lines.append(f"answer : {final}")
    return lines


def key(equation: Equation) -> tuple[int, str, int]:
    """What is computed, whatever comes out."""
    return equation.left, equation.op, equation.right
