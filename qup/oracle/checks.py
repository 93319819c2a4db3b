r"""What an Oracle's answer is, before its final answer is verified.

Rules are conservative: text is taken away only where its form says that it is not part of the solution, and never
from inside one. A judgement errs on the side of `ok`; a wrong answer is caught by verification in any case.
"""

from __future__ import annotations

import re

from qup.oracle.asks import Answer

STATUSES = ("ok", "prose", "unchanged", "refused", "cut_off", "empty", "echo", "error")
USABLE = ("ok", "prose", "unchanged")
"""With these the text can be verified. prose: a solution was found between talk about it, which was taken away."""

_REFUSAL = re.compile(
    r"^\W*(i(['’]?m| am) (very |really |so )?sorry|sorry|i apologi[sz]e|i (can(no|['’])t|am unable|am not able|won['’]t|will not|must decline)|as an ai\b|unfortunately,? i )"
    r"(?=.*\b(can(no|['’])t|unable|not able|won['’]t|will not|decline|help|assist|comply|provide)\b)",
    re.IGNORECASE | re.DOTALL,
)
_REFUSAL_LENGTH = 400
_ANSWERED = re.compile(r"\\boxed|####|answer\s*(is|:)", re.IGNORECASE)
_TAGS = re.compile(r"</?(problem|reference)>|<solution id=|^Task: (refine|synthesize|style_aligned|judge|rank)\b", re.MULTILINE)
_THINKING = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)
_WRAPPED = re.compile(r"\A\s*<solution>\s*?\n?(.*?)\s*</solution>\s*\Z", re.DOTALL)
_FENCED = re.compile(r"\A```[a-zA-Z]*[ \t]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_LEAD_IN = re.compile(
    r"\A\s*(?:(?:sure|certainly|of course|absolutely|okay|ok)[!,.]?[ ]*)?"
    r"(?:here(?:['’]s| is| are)|below is|(?:this is )?the following is|i(?:['’]ve| have)? (?:corrected|refined|revised|repaired|fixed|rewritten))"
    r"[^\n]{0,200}?\b(?:solution|version|trace|text|answer|reasoning)\b[^\n]{0,100}:[*_]*[ \t]*\n+",
    re.IGNORECASE,
)
_CONSENT = re.compile(r"\A\s*(?:sure|certainly|of course|absolutely)[!.][ \t]*\n+", re.IGNORECASE)
_HEADING = re.compile(
    r"\A\s*(?:#{1,4} |\*\*)(?:the )?(?:corrected|refined|revised|repaired|improved|style-aligned) (?:solution|version|trace)(?:\*\*)?:?(?:\*\*)?[ \t]*\n+",
    re.IGNORECASE,
)
_AFTERWORD = re.compile(
    r"\n\s*\n(?:-{3,}\s*\n+)?(?:[*_#]*\s*)?(?:let me know if|i hope this helps|feel free to|(?:list of |summary of )?changes(?: made)?\s*:|i(?:['’]ve| have)? (?:corrected|fixed|changed|kept|preserved|made|only) )"
    r"(?:(?!\n\s*\n).|\n(?!\s*\n))*\Z",
    re.IGNORECASE,
)


def check(answer: Answer, *, question: str, trace: str | None) -> tuple[str, str]:
    """(status, text) of an answer to refine, synthesize or style_aligned; `trace` is what it was made from, if anything.

    The text has talk around the solution taken away. Statuses are those of STATUSES; `error`: the request itself failed.
    """
    return classify(answer.text, answer.finish, question, trace)


def classify(text: str, finish: str, question: str, trace: str | None) -> tuple[str, str]:
    """As `check`, for a bare text and its finish reason."""
    if finish in ("error", "refused"):
        return finish, text
    if finish == "length":
        return "cut_off", text
    if not text.strip():
        return "empty", ""
    if len(text) <= _REFUSAL_LENGTH and _REFUSAL.search(text) and not _ANSWERED.search(text):
        return "refused", text
    solution = strip_prose(text, trace)
    if not solution.strip():
        return "empty", ""
    if _TAGS.search(solution) and not (trace and _TAGS.search(trace)):
        return "echo", solution
    if _squeeze(solution) == _squeeze(question):
        return "echo", solution
    if trace is not None and _squeeze(solution) == _squeeze(trace):
        return "unchanged", solution
    return ("ok" if solution == text else "prose"), solution


def strip_prose(text: str, trace: str | None = None) -> str:
    """The solution without a lead-in, a fence or tags around the whole, or an afterword; what the trace itself has stays.

    Where nothing is to be taken away the text comes back as it is, white space included.
    """
    solution = text
    for rule in (_THINKING, _CONSENT, _LEAD_IN, _HEADING):
        if not (trace and rule.search(trace)):
            solution = rule.sub("", solution, count=1)
    for rule in (_FENCED, _WRAPPED):
        whole = rule.match(solution.strip()) if not (trace and rule.match(trace.strip())) else None
        if whole and "```" not in whole[1] and "<solution" not in whole[1]:
            solution = whole[1]
    if not (trace and _AFTERWORD.search(trace)):
        found = _AFTERWORD.search(solution)
        if found and _ANSWERED.search(solution[: found.start()]) and not _ANSWERED.search(found[0]):
            solution = solution[: found.start()]
    return solution


def _squeeze(text: str) -> str:
    return " ".join(text.split())
