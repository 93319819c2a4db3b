"""`qup answers` says how a verdict comes about."""

from __future__ import annotations

import pytest

from qup.answers.explanation import WHY, explain
from qup.answers.verifier import VERDICTS
from qup.cli import main


def steps(answer: str, gold: str) -> dict[str, str]:
    return dict(explain(answer, gold, 5.0))


def test_every_verdict_has_its_reason() -> None:
    assert set(WHY) == set(VERDICTS)


def test_what_is_equal_at_once_shows_the_normal_forms() -> None:
    found = steps("$\\dfrac{1}{2}$", "0.5")
    assert found["answer tidied"] == "\\frac{1}{2}   (dollars, fractions)"
    assert found["answer in normal form"] == found["gold in normal form"] == "1/2"
    assert found["verdict"].startswith("equal: ")
    assert "answer read as" not in found


def test_what_takes_values_shows_the_shapes() -> None:
    found = steps("x_1(R+r)", "r/R")
    assert found["answer read as"] == "quantity(node (x_1·(R + r)))"
    assert found["gold read as"] == "quantity(node (r·R^-1))"
    assert found["compared"]
    assert found["verdict"] == "wrong: different for certain; not correct"


def test_what_cannot_be_read_says_why() -> None:
    found = steps("1/2x", "x/2")
    assert found["answer read as"] == "nothing for certain: a product after a slash may be above or below it"
    assert found["verdict"].startswith("undecided: ")


@pytest.mark.parametrize("answer", ["", "5" * 3000, "[bold]x[/bold]", "\\text{[red]}"])
def test_the_command_prints_any_answer_as_it_stands(answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["answers", answer, "[1, 2)"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "verdict" in told
    assert len(answer) > 100 or answer in told
