"""Artifacts of a judged study and a judge that is a function."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qup.oracle import client
from qup.oracle.asks import Request
from qup.oracle.completions import Reply
from qup.records import ALIGNED, PROBLEMS, ROLLOUTS, SOLVABLE, STREAM
from qup.store import Artifact
from tests.helpers.artifacts import artifact, rows
from tests.oracle.fakes import FakeBackend

IDS = [f"p{n}" for n in range(12)]
ALIGNED_IDS = [id for id in IDS if id != "p5"]


def native(id: str) -> str:
    return f"native of {id}"


def inputs(root: Path, *arms: str) -> dict[str, Artifact]:
    """Two rollouts a problem, the second kept; p5 isn't aligned; one stream an arm."""
    solved = {"n_samples": 2, "n_correct": 2, "n_eligible": 2, "kept": 1}
    drawn = {"token_ids": [], "logprob_T": [], "finish": "stop", "extracted": "", "correct": True, "verdict": "equal", "eligible": True}
    rollouts = [{"problem_id": id, "sample": s, "text": native(id) if s else "another"} for id in IDS for s in (0, 1)]
    written = {
        "pool": "p",
        "candidate": 0,
        "teacher": "t",
        "weight": 1.0,
        "turns": [],
        "correct": True,
        "status": "ok",
        "random_candidate": "p/0",
        "n_eligible": 1,
    }
    made = {
        "problems": artifact(
            root,
            "problems",
            problems=rows(PROBLEMS, [{"problem_id": id, "question": f"question {id}"} for id in IDS], answer="1", solution=""),
        ),
        "solvable": artifact(root, "solvable", solvable=rows(SOLVABLE, [{"problem_id": id} for id in IDS], **solved)),
        "rollouts": artifact(root, "rollouts", rollouts=rows(ROLLOUTS, rollouts, **drawn)),
        "aligned": artifact(root, "aligned", aligned=rows(ALIGNED, [{"problem_id": id} for id in ALIGNED_IDS])),
    }
    for arm in arms:
        texts = [{"problem_id": id, "question": f"question {id}", "text": f"{arm} of {id}"} for id in ALIGNED_IDS]
        made[f"stream.{arm}"] = artifact(root, "stream", arm, stream=rows(STREAM, texts, **written))
    return made


def judged_by(patch: pytest.MonkeyPatch, judge: Callable[[Request, int], str | Reply]) -> FakeBackend:
    """Makes every client's backend answer by `judge(request, n)`."""

    def behave(request: Request, n: int) -> Reply:
        given = judge(request, n)
        return given if isinstance(given, Reply) else Reply(given, "stop", 100, 10)

    backend = FakeBackend(behave)
    patch.setattr(client, "make_backend", lambda *_: backend)
    return backend


def shown(request: Request) -> dict[str, str]:
    """The labelled solutions of a request, in order."""
    return dict(re.findall(r'<solution id="(\w)">\n(.*?)\n</solution>', request.body["messages"][1]["content"], re.DOTALL))
