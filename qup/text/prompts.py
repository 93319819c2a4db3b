r"""The Oracle's orders: what it is asked to do with a problem and a trace, one prompt a task.

Written from the paper's description of its protocol (sections on refinement, synthesis, style-aligned refinement and
semantic retention), in words of our own. A prompt's digest is part of every key that depends on it, so a changed word
is a changed study; `oracle.prompts` replaces one by a file.

The system message begins with the line `Task: <task>`. The problem stands in `<problem>`, a trace in `<solution>`,
labelled traces in `<solution id="A">`, a style reference in `<reference>`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qup.config.schema import Oracle
from qup.errors import ConfigError, Fault

Message = dict[str, str]

_PLACEHOLDER = re.compile(r"\{(problem|solution|reference|solutions|ending)\}")
_SECTIONS = re.compile(r"^\[(system|user)\][ \t]*$", re.MULTILINE)

ENDINGS = {
    "dft": r"Its last line gives the final answer inside \boxed{}.",
    "boxed": r"Its last line gives the final answer inside \boxed{}.",
    "last_number": "It ends with the final answer, a number, and no other number follows it.",
    "gsm8k": "Its last line is `#### ` followed by the final answer, a number.",
    "lab": "Its last line is `answer : ` followed by the final answer, a number.",
}
"""How a solution has to end so that `qup.answers.extract` reads its answer, by extraction mode."""


@dataclass(frozen=True)
class Prompt:
    """One task's orders; `system` and `user` are templates in which `{problem}`, `{solution}`, … are replaced."""

    task: str
    version: int
    system: str
    user: str

    @property
    def placeholders(self) -> frozenset[str]:
        """Names of the parts that are filled in."""
        return frozenset(_PLACEHOLDER.findall(self.system + self.user))

    @property
    def digest(self) -> str:
        """SHA-256 of everything in this prompt that the Oracle sees."""
        return hashlib.sha256("\0".join((self.task, self.system, self.user)).encode()).hexdigest()


_ONLY = """Write the whole solution and nothing else: no preface, no remark on what you did, no quotation of the problem, no code fence around it. {ending}"""

_REPAIRED = """Write the whole solution and nothing else: no preface, no remark on what you did, no quotation of the problem, no code fence around it. The final answer stays where and how the student states it. Where the student states none: {ending}"""

_REFINE = Prompt(
    "refine",
    2,
    f"""You repair a student's worked solution of a mathematics problem, with as little intervention as possible.
Mend what is wrong: grammar, transitions that do not follow from what stands before them, gaps and errors of logic, wrong computations, and the final answer where it is wrong.
Leave what is right as it stands. Do not shorten, extend, reorder or restyle it, and do not start over with an approach of your own while the student's can be repaired.
{_REPAIRED}""",
    "<problem>\n{problem}\n</problem>\n\n<solution>\n{solution}\n</solution>",
)

_SYNTHESIZE = Prompt(
    "synthesize",
    1,
    f"""You solve a mathematics problem from scratch, as a clear and complete worked solution from which a student can learn.
Reason step by step, justify each step, and check the result before you state it.
{_ONLY}""",
    "<problem>\n{problem}\n</problem>",
)

_STYLE_ALIGNED = Prompt(
    "style_aligned",
    2,
    f"""You repair the logic of a student's worked solution of a mathematics problem and keep the student's voice.
Correct only errors of reasoning and computation, and the final answer where it is wrong. A correct step is copied character for character.
Whatever you have to write anew is written as this student would have written it. Keep
- the syntax: sentence openings, connectives, length of sentences, imperfect but understandable grammar;
- the spacing: line breaks, blank lines, indentation, space around operators;
- the structure of lists and paragraphs, headings, numbering and emphasis;
- the granularity: as many steps as the student takes, neither merged nor split, detours and trials included;
- the notation: names of variables, plain text or LaTeX, and its delimiters.
Where a <reference> is given, it shows the style to write in; take its style and nothing of its content.
{_REPAIRED}""",
    "<problem>\n{problem}\n</problem>\n\n<solution>\n{solution}\n</solution>{reference}",
)

_COOPERATE = Prompt(
    "cooperate",
    1,
    """Solve the mathematics problem step by step. {ending}
The solution may have been begun for you: then go on from where it stops, in the middle of its sentence where it stops there, in its manner of writing, and repeat nothing of it.""",
    "<problem>\n{problem}\n</problem>",
)

_JUDGE = Prompt(
    "judge",
    2,
    """You are given a mathematics problem, a worked solution of it as <reference>, and a second solution. Judge how much of the reference's content the second one keeps. What the second one adds does not matter; nor do wording, layout, length and correctness.
Rate each aspect with a whole number from 1 to 5, where 5 means that everything of the reference is found in the second, 3 that about half is, and 1 that next to nothing is:
- definitions: quantities, variables and terms that are introduced, and what they stand for;
- equations: intermediate equations and results on the way;
- assumptions: conditions, cases and simplifications that are relied on, stated or not;
- trial_steps: attempts, checks, corrections and detours. Where the reference has none, the rating is 5.
Then rate the whole, `overall`, on the same scale.
Answer with one JSON object and nothing else: {"definitions": n, "equations": n, "assumptions": n, "trial_steps": n, "overall": n}""",
    "<problem>\n{problem}\n</problem>{reference}\n\n<solution>\n{solution}\n</solution>",
)

_JUDGE_SYMMETRIC = Prompt(
    "judge_symmetric",
    1,
    """You compare two worked solutions of one mathematics problem and judge how far they hold the same content. Which came first is not known and does not matter; wording, layout, length and correctness do not matter either.
Rate each aspect with a whole number from 1 to 5, where 5 means that everything of the one is found in the other, 3 that about half is, and 1 that next to nothing is:
- definitions: quantities, variables and terms that are introduced, and what they stand for;
- equations: intermediate equations and results on the way;
- assumptions: conditions, cases and simplifications that are relied on, stated or not;
- trial_steps: attempts, checks, corrections and detours. Where neither has any, the rating is 5.
Then rate the whole, `overall`, on the same scale.
Answer with one JSON object and nothing else: {"definitions": n, "equations": n, "assumptions": n, "trial_steps": n, "overall": n}""",
    "<problem>\n{problem}\n</problem>\n\n{solutions}",
)

_RANK = Prompt(
    "rank",
    1,
    """You are given a mathematics problem, a worked solution of it as <reference>, and further solutions labelled by letters. Order the labelled ones by how much of the reference's content they keep: its definitions, intermediate equations, assumptions, and trial steps. Wording, layout, length and correctness do not matter.
Every label occurs once, and there are no ties.
Answer with one JSON object and nothing else, the labels from the most to the least kept, such as {"ranking": ["B", "A", "C"]}""",
    "<problem>\n{problem}\n</problem>{reference}\n\n{solutions}",
)

ORACLE_PROMPTS: dict[str, Prompt] = {
    prompt.task: prompt for prompt in (_REFINE, _SYNTHESIZE, _STYLE_ALIGNED, _COOPERATE, _JUDGE, _JUDGE_SYMMETRIC, _RANK)
}


def oracle_prompts(oracle: Oracle) -> dict[str, Prompt]:
    """The prompts by task, with the files (or, once planned, texts) of `oracle.prompts` in place of the built-in ones; raises ConfigError."""
    faults = check_prompts(oracle)
    if faults:
        raise ConfigError(faults)
    return ORACLE_PROMPTS | {task: _read(task, path) for task, path in oracle.prompts.items()}


def check_prompts(oracle: Oracle, key: str = "oracle") -> list[Fault]:
    """What is wrong with the files of `<key>.prompts`."""
    faults = []
    for task, path in oracle.prompts.items():
        setting = f"{key}.prompts.{task}"
        if task not in ORACLE_PROMPTS:
            faults.append(Fault(setting, path, f"tasks are {', '.join(ORACLE_PROMPTS)}"))
            continue
        try:
            given = _read(task, path)
        except (OSError, UnicodeDecodeError) as error:
            faults.append(Fault(setting, path, f"has to be a readable text file ({error})"))
            continue
        except ValueError as error:
            faults.append(Fault(setting, path, str(error)))
            continue
        wanted, found = ORACLE_PROMPTS[task].placeholders, given.placeholders
        if found != wanted:
            missing = [f"{{{name}}}" for name in sorted(wanted - found)]
            surplus = [f"{{{name}}}" for name in sorted(found - wanted)]
            parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(surplus)}, which {task} does not fill in"] * bool(
                surplus
            )
            faults.append(
                Fault(setting, path, f"the file {' and '.join(parts)}; {task} takes {', '.join(f'{{{n}}}' for n in sorted(wanted))}")
            )
    return faults


def fill(
    prompt: Prompt,
    *,
    problem: str,
    solution: str = "",
    reference: str | None = None,
    solutions: Sequence[tuple[str, str]] = (),
    extraction: str = "boxed",
) -> list[Message]:
    """The chat messages of one request.

    `reference`: a native trace as style reference (style_aligned) or as what is compared with (judge, rank).
    `solutions`: (label, trace) in the order shown. `extraction`: how the answer will be read, see ENDINGS.
    Braces and tags inside the texts stay as they are.
    """
    parts = {
        "problem": problem,
        "solution": solution,
        "reference": "" if reference is None else f"\n\n<reference>\n{reference}\n</reference>",
        "solutions": "\n\n".join(f'<solution id="{label}">\n{text}\n</solution>' for label, text in solutions),
        "ending": ENDINGS[extraction],
    }
    system, user = (_PLACEHOLDER.sub(lambda match: parts[match[1]], text) for text in (prompt.system, prompt.user))
    return [{"role": "system", "content": f"Task: {prompt.task}\n{system}"}, {"role": "user", "content": user}]


def _read(task: str, given: str) -> Prompt:
    """A prompt from a file with a part under the line `[system]` and one under `[user]`; planning puts the file's text in place of its path."""
    text = given if "\n" in given else Path(given).expanduser().read_text(encoding="utf-8")
    pieces = _SECTIONS.split(text)
    names = pieces[1::2]
    if pieces[0].strip() or names != ["system", "user"]:
        raise ValueError("the file has a line `[system]`, the system message, a line `[user]` and the user message, in this order")
    return Prompt(task, 0, pieces[2].strip("\n"), pieces[4].strip("\n"))
