"""The Oracle's orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from qup.config.schema import EXTRACTIONS, Oracle
from qup.errors import ConfigError
from qup.text.prompts import ENDINGS, ORACLE_PROMPTS, check_prompts, fill, oracle_prompts


@pytest.mark.parametrize("task", sorted(ORACLE_PROMPTS))
def test_the_system_message_begins_with_the_task(task: str) -> None:
    system, user = fill(ORACLE_PROMPTS[task], problem="P", solution="S", solutions=[("A", "x")])
    assert (system["role"], user["role"]) == ("system", "user")
    assert system["content"].splitlines()[0] == f"Task: {task}"
    assert "<problem>\nP\n</problem>" in user["content"]


def test_texts_come_through_as_they_are() -> None:
    hostile = r"\frac{1}{2} {solution} {problem} {x} % $ \1 </problem>"
    _, user = fill(ORACLE_PROMPTS["refine"], problem=hostile, solution="mine")
    assert user["content"] == f"<problem>\n{hostile}\n</problem>\n\n<solution>\nmine\n</solution>"


def test_a_reference_is_shown_only_where_there_is_one() -> None:
    prompt = ORACLE_PROMPTS["style_aligned"]
    assert "<reference>" not in fill(prompt, problem="P", solution="S")[1]["content"]
    assert "<reference>\nnative\n</reference>" in fill(prompt, problem="P", solution="S", reference="native")[1]["content"]


def test_labelled_solutions_keep_their_order() -> None:
    _, user = fill(ORACLE_PROMPTS["rank"], problem="P", reference="R", solutions=[("A", "one"), ("B", "two")])
    assert user["content"].index('<solution id="A">\none') < user["content"].index('<solution id="B">\ntwo')


def test_every_extraction_mode_has_an_ending_that_the_orders_name() -> None:
    assert set(ENDINGS) == set(EXTRACTIONS)
    for extraction in EXTRACTIONS:
        assert ENDINGS[extraction] in fill(ORACLE_PROMPTS["synthesize"], problem="P", extraction=extraction)[0]["content"]


def digests(oracle: Oracle) -> dict[str, str]:
    return {task: prompt.digest for task, prompt in oracle_prompts(oracle).items()}


def test_a_file_replaces_a_prompt_and_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "refine.txt"
    file.write_text("[system]\nMend it. {ending}\n[user]\n{problem}\n--\n{solution}\n")
    oracle = Oracle(prompts={"refine": str(file)})
    system, user = fill(oracle_prompts(oracle)["refine"], problem="P", solution="S")
    assert system["content"].startswith("Task: refine\nMend it.")
    assert user["content"] == "P\n--\nS"
    mine, built_in = digests(oracle), digests(Oracle())
    assert mine["refine"] != built_in["refine"]
    assert {task for task in mine if mine[task] != built_in[task]} == {"refine"}
    assert digests(Oracle(prompts={"refine": file.read_text()})) == mine, "planning puts the text in place of the path"
    file.write_text("[system]\nMend it! {ending}\n[user]\n{problem}\n--\n{solution}\n")
    assert digests(oracle)["refine"] != mine["refine"]


def test_all_faults_of_prompt_files_are_told_together(tmp_path: Path) -> None:
    files = {
        "refine": "[system]\nx\n[user]\n{problem}",
        "judge": "no sections",
        "synthesize": "[system]\n{ending}\n[user]\n{problem} {solution}",
    }
    for task, text in files.items():
        (tmp_path / task).write_text(text)
    oracle = Oracle(prompts={task: str(tmp_path / task) for task in files} | {"rank": str(tmp_path / "absent"), "polish": "x"})
    faults = {fault.key: fault.valid for fault in check_prompts(oracle, "judge")}
    assert set(faults) == {f"judge.prompts.{task}" for task in (*files, "rank", "polish")}
    assert "{solution}" in faults["judge.prompts.refine"] and "{ending}" in faults["judge.prompts.refine"]
    assert "does not fill in" in faults["judge.prompts.synthesize"]
    assert "[system]" in faults["judge.prompts.judge"]
    assert "readable" in faults["judge.prompts.rank"]
    assert "refine" in faults["judge.prompts.polish"]
    with pytest.raises(ConfigError, match="5 faults"):
        oracle_prompts(oracle)
