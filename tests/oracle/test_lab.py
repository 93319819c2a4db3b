"""The lab's programmed Oracle behind the same interface."""

from __future__ import annotations

import time
from pathlib import Path

from qup.config.schema import LabOracle, LabProblems, Oracle
from qup.lab.world import problems
from qup.oracle import Ask, OracleClient, check, open_oracle
from qup.text.prompts import fill, oracle_prompts

PROBLEMS = problems(LabProblems(n=40, seed=1))


def opened(folder: Path, **settings: float) -> OracleClient:
    return open_oracle(Oracle(name="lab", backend="lab", seed=0, lab=LabOracle(**settings)), folder)


def asks(task: str) -> list[Ask]:
    prompt = oracle_prompts(Oracle())[task]
    return [
        Ask(row["problem_id"], task, fill(prompt, problem=row["question"], solution=row["solution"], extraction="lab")) for row in PROBLEMS
    ]


def test_answers_are_solutions_and_refusals_are_told(tmp_path: Path) -> None:
    for task in ("refine", "synthesize", "style_aligned"):
        for refuse_rate, statuses in ((0.0, {"ok", "unchanged"}), (1.0, {"refused"})):
            with opened(tmp_path, refuse_rate=refuse_rate, error_rate=0.0) as client:
                answers = list(client.ask(asks(task)))
            found = {check(answer, question="?", trace=PROBLEMS[0]["solution"])[0] for _, answer in answers}
            assert len(answers) == 40 and found <= statuses
            assert all(answer.input_tokens > 0 and answer.output_tokens > 0 for _, answer in answers)


def test_its_settings_are_part_of_a_requests_key_and_its_latency_is_not(tmp_path: Path) -> None:
    for settings, stored in (({}, False), ({"latency_s": 0.01}, True), ({"error_rate": 0.5}, False)):
        with opened(tmp_path, **settings) as client:
            assert {answer.from_store for _, answer in client.ask(asks("synthesize"))} == {stored}


def test_its_latency_passes_side_by_side(tmp_path: Path) -> None:
    started = time.monotonic()
    with opened(tmp_path, latency_s=0.2) as client:
        assert len(list(client.ask(asks("synthesize")))) == 40
    assert time.monotonic() - started < 4
