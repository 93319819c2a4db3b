"""What an answer is, and what is taken away around a solution."""

from __future__ import annotations

import pytest

from qup.oracle import STATUSES, USABLE, Answer, check
from qup.oracle.checks import strip_prose

QUESTION = "Tom has 3 apples and buys 4 more. How many has he?"
TRACE = "Tom has 3 apples.\nHe buys 4 more, so 3 + 4 = 7.\n\nThe answer is \\boxed{7}."


def status(text: str, finish: str = "stop", trace: str | None = TRACE) -> str:
    return check(Answer(text, finish, 1, 1, 0.0, "k", False), question=QUESTION, trace=trace)[0]


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("3 + 4 = 7, \\boxed{7}", "stop", "ok"),
        ("3 + 4 =", "length", "cut_off"),
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        ("```\n```", "stop", "empty"),
        ("I won't", "refused", "refused"),
        ("", "error", "error"),
        ("I'm sorry, but I can't help with that.", "stop", "refused"),
        ("I cannot assist with this request.", "stop", "refused"),
        ("I am sorry , but I cannot help with this problem .", "stop", "refused"),
        ("I’m really sorry, but I can’t provide that.", "stop", "refused"),
        ("As an AI, I am unable to provide solutions.", "stop", "refused"),
        ("I can't see a shortcut, so I add: 3 + 4 = 7. The answer is \\boxed{7}.", "stop", "ok"),
        ("Sorry for the length. 3 + 4 = 7.", "stop", "ok"),
        (TRACE, "stop", "unchanged"),
        (TRACE.replace("\n", " \n "), "stop", "unchanged"),
        (QUESTION, "stop", "echo"),
        (f"<problem>\n{QUESTION}\n</problem>\n\n<solution>\n{TRACE}\n</solution>", "stop", "echo"),
        (f"Task: refine\nYou repair a solution.\n{TRACE}", "stop", "echo"),
        (f"{QUESTION}\n3 + 4 = 7 \\boxed{{7}}", "stop", "ok"),
        ("Here is the refined solution:\n\n3 + 4 = 7, \\boxed{7}", "stop", "prose"),
    ],
)
def test_answers_are_told_apart(text: str, finish: str, expected: str) -> None:
    assert status(text, finish) == expected
    assert expected in STATUSES


def test_only_complete_solutions_are_usable() -> None:
    assert set(USABLE) == {"ok", "prose", "unchanged"}


SOLUTION = "Tom has 3.\n\n  - he buys 4\n  - 3 + 4 = 7\n\nThe answer is \\boxed{7}."


@pytest.mark.parametrize(
    "wrapped",
    [
        f"Here is the corrected solution:\n\n{SOLUTION}",
        f"Sure! Here's the repaired version of the student's solution:\n{SOLUTION}",
        f"Certainly.\n\n{SOLUTION}",
        f"Below is the solution, with minimal changes:\n\n{SOLUTION}",
        f"**Refined solution:**\n\n{SOLUTION}",
        f"## Corrected Solution\n{SOLUTION}",
        f"```\n{SOLUTION}\n```",
        f"```latex\n{SOLUTION}\n```\n",
        f"Here is the refined solution:\n\n```\n{SOLUTION}\n```",
        f"<solution>\n{SOLUTION}\n</solution>",
        f"<think>\nhmm \\boxed{{8}}?\n</think>\n\n{SOLUTION}",
        f"{SOLUTION}\n\nI corrected the sum in the second step.",
        f"{SOLUTION}\n\n---\n\nChanges made:\n- fixed the sum\n- fixed grammar",
        f"{SOLUTION}\n\nLet me know if you need anything else!",
        f"Here is the refined solution:\n\n{SOLUTION}\n\nI only fixed the addition.",
    ],
)
def test_talk_around_a_solution_is_taken_away(wrapped: str) -> None:
    assert strip_prose(wrapped) == SOLUTION
    assert status(wrapped, trace=None) == "prose"


@pytest.mark.parametrize(
    "text",
    [
        SOLUTION,
        f"  {SOLUTION}\n",
        "Here is what we know: 3 apples.\nSo 7. \\boxed{7}",
        "Sure, 3 + 4 = 7. \\boxed{7}",
        "The following is given: 3.\n```\n3 + 4\n```\nso \\boxed{7}",
        "I fixed x = 3 first, then y = 4. \\boxed{7}",
        "So \\boxed{7}.\n\nI made sure by counting: the answer is 7.",
        "We note the changes:\n\n3 to 7.\n\nThe answer is \\boxed{7}.",
        "# Solution\n\n3 + 4 = \\boxed{7}",
        "<solution> is a tag, and \\boxed{7}",
    ],
)
def test_what_may_belong_to_a_solution_stays(text: str) -> None:
    assert strip_prose(text) == text


def test_what_the_trace_itself_has_stays() -> None:
    trace = f"Here is my solution:\n{SOLUTION}"
    assert strip_prose(trace.replace("Tom", "Tim"), trace) == trace.replace("Tom", "Tim")
    assert status(f"<problem>\n{SOLUTION}", trace=f"<problem>\n{TRACE}") == "ok"
