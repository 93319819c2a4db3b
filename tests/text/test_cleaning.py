"""Light cleaning: what each rule takes away, and what none of them may touch."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from qup.answers.extraction import extract
from qup.text.cleaning import RULES, clean, formulas

DATA = Path(__file__).parents[2] / "../shared/data"


def boxed(text):
    return extract(text, "boxed")


SOLVED = "We add.\n\n\\[ 2 + 2 = 4 \\]\n\nSo the answer is \\(\\boxed{4}\\)."


@pytest.mark.parametrize(
    ("rule", "raw", "expected"),
    [
        ("special_tokens", SOLVED + "<|im_end|>\n<|im_start|>user\nWhat is 3+3?", SOLVED),
        ("special_tokens", SOLVED + "</s>", SOLVED),
        ("special_tokens", SOLVED.replace("We add.", "We add.<s>"), SOLVED),
        ("control_characters", SOLVED.replace("We add", "We\u200b add\x00"), SOLVED),
        ("control_characters", SOLVED.replace("We add.\n", "We add.\r\n"), SOLVED),
        ("next_turn", SOLVED + "\n\nHuman: What is $5+5$?\n\nAssistant: ten", SOLVED),
        ("next_turn", SOLVED + "\n**Question 2**: next one", SOLVED),
        ("next_turn", SOLVED + "\nuser\nWhat is $5+5$?\nassistant\nten", SOLVED),
        ("next_turn", SOLVED + "\n\n### Instruction\nFind $x$.", SOLVED),
        ("invented_output", SOLVED + "\n```output\n4\n```\nSo it is 4.", SOLVED),
        ("repeated_tail", SOLVED + "\n\nSo the answer is \\(\\boxed{4}\\)." * 3, SOLVED),
        ("after_answer", SOLVED + " I hope this helps! Please ask if anything is unclear.", SOLVED),
        ("trailing_space", SOLVED.replace("We add.", "We add.  \t") + "  \n\n", SOLVED),
        ("blank_lines", SOLVED.replace("We add.\n\n", "We add.\n\n\n\n\n"), SOLVED),
        ("blank_lines", "\n\n" + SOLVED, SOLVED),
    ],
)
def test_each_rule_takes_its_noise_away(rule, raw, expected):
    cleaned = clean(raw, boxed)
    assert cleaned.text == expected
    assert rule in cleaned.rules


def test_clean_text_stays_as_it_is():
    assert clean(SOLVED, boxed).text is SOLVED
    assert clean(SOLVED, boxed).rules == ()


@pytest.mark.parametrize(
    "text",
    [
        "So \\(\\boxed{4}\\). Check: 2 + 2 = 4.",
        "So \\(\\boxed{4}\\). That makes 4 apples.",
        "So \\(\\boxed{4}\\). Equivalently $x$ is even.",
        "So \\(\\boxed{4}\\), which is what was asked for",
        "Problem: add. We find \\(\\boxed{4}\\).",
        "$$\na\n\n\n\n+ b  \n$$ is \\boxed{4}",
        "\\begin{align}\n a &= 1  \n\n\n b &= 2\n\\end{align}\nso \\boxed{3}.",
        "\\boxed{\\text{<s>}}",
        "```python\nprint(1)  \n\n\n\n```\n\\boxed{1}.",
    ],
)
def test_what_may_be_content_stays(text):
    assert clean(text, boxed).text == text


def test_prose_is_cleaned_around_formulas_that_hold_the_same_noise():
    text = "First:\n\n\n\n$$\na\n\n\n\n+ b  \n$$\n\n\n\nso \\boxed{4}."
    cleaned = clean(text, boxed)
    assert cleaned.text == "First:\n\n$$\na\n\n\n\n+ b  \n$$\n\nso \\boxed{4}."
    assert cleaned.rules == ("blank_lines",)


def test_a_rule_that_changes_the_answer_is_undone():
    text = "\\boxed{3}<|im_end|> no, wait: \\boxed{4}"
    cleaned = clean(text, lambda value: extract(value, "boxed"))
    assert cleaned.text == text
    assert extract(cleaned.text, "boxed") == "4"
    assert "special_tokens" in cleaned.undone


def test_nothing_is_ever_emptied():
    for text in ("<|im_end|>", "\n\n", "  ", "\x00"):
        assert clean(text, boxed).text == text


def noisy(rng):
    pieces = [
        "We add.", "$x + 1$", "\\[ a\n\n\n = b \\]", "\\boxed{4}", "\\(\\boxed{\\frac{1}{2}}\\)", "<|im_end|>", "<s>", "\n\n\n\n", "  \n", "\x00",
        "\\", "(", "$", "$$", "\nHuman: hi", "So be it.", "\ufffd", "{", "}", "\r\n", "\\begin{align}", "\\end{align}", "```",
    ]  # fmt: skip
    return "".join(rng.choice(pieces) + rng.choice(["", " ", "\n"]) for _ in range(rng.randrange(1, 25)))


def test_formulas_answers_and_a_second_cleaning():
    """Whatever the text: surviving formulas are the first ones byte for byte, the answer stays, and cleaning is idempotent."""
    rng = random.Random(1)
    fired = set()
    for _ in range(3000):
        text = noisy(rng)
        cleaned = clean(text, boxed)
        kept = formulas(cleaned.text)
        assert kept == formulas(text)[: len(kept)]
        assert boxed(cleaned.text) == boxed(text)
        assert cleaned.text.strip() or not text.strip() or cleaned.text == text
        fired.update(cleaned.rules)
    assert fired >= {"special_tokens", "control_characters", "trailing_space", "blank_lines"}


def test_rules_are_named():
    assert list(RULES) == [
        "special_tokens",
        "control_characters",
        "next_turn",
        "invented_output",
        "repeated_tail",
        "after_answer",
        "trailing_space",
        "blank_lines",
    ]


@pytest.mark.skipif(not (DATA / "math_cot_60_rm_scores.jsonl").exists(), reason="real traces are not here")
def test_real_traces_are_nearly_untouched():
    with (DATA / "math_cot_60_rm_scores.jsonl").open() as stream:
        traces = [trace for line in stream for trace in json.loads(line)["code"]]
    cleaned = [clean(trace, boxed) for trace in traces]
    assert len(traces) == 480
    assert sum(bool(entry.rules) for entry in cleaned) < 20
    for raw, entry in zip(traces, cleaned, strict=True):
        assert boxed(raw) == boxed(entry.text)
        assert formulas(entry.text) == formulas(raw)
