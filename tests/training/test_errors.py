"""What goes wrong inside a rank: steps without a finite gradient, bad settings, faults in taking down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qup.config.schema import Zero
from qup.errors import InputError, QupError
from qup.training.student import Trained
from tests.training.world import Workshop


def poisoned(monkeypatch: pytest.MonkeyPatch, calls: set[int]) -> None:
    """Hidden states that are not finite, in the forward passes of those numbers."""
    whole = Trained.hidden
    count = [0]

    def hidden(self: Trained, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        found = whole(self, input_ids, position_ids)
        if self.training:
            count[0] += 1
            if count[0] in calls:
                return found * float("nan")
        return found

    monkeypatch.setattr(Trained, "hidden", hidden)


@pytest.mark.parametrize(
    ("zero", "dtype"),
    [(Zero(0), "float32"), (Zero(1), "float32"), (Zero(3), "float32"), *((Zero(stage), "bfloat16") for stage in (1, 2, 3))],
    ids=str,
)
def test_a_step_without_a_finite_gradient_is_skipped_and_counted(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, zero: Zero, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    poisoned(monkeypatch, {2, 4})
    metrics = workshop.train(zero=zero, dtype=dtype, row_tokens=64, micro_batch=64)
    assert metrics["skipped_steps"] == 2 and metrics["steps"] == 5
    assert "step 2 skipped: its gradient is not finite (problems p" in caplog.text
    lines = [json.loads(line) for line in (workshop.out / "steps.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [False, True, False, True, False]
    assert lines[1]["loss"] is None and lines[2]["loss"] > 0
    assert all(bool(torch.isfinite(tensor).all()) for tensor in workshop.weights().values())


def test_three_in_a_row_end_the_run_naming_step_and_problems(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, {2, 3, 4})
    with pytest.raises(InputError, match=r"steps 2 to 4: 3 optimizer steps in a row .* problems of the last: p\d+"):
        workshop.train(row_tokens=64, micro_batch=64)


def clumsy(monkeypatch: pytest.MonkeyPatch, fault: Callable[[], None]) -> None:
    """Taking down engine and process group ends in a fault."""
    from torch import distributed

    from qup.training.engine import Engine

    for owner, name in ((Engine, "close"), (distributed, "destroy_process_group")):
        whole = getattr(owner, name)

        def broken(*args: Any, whole: Callable[..., None] = whole) -> None:
            whole(*args)
            fault()

        monkeypatch.setattr(owner, name, broken)


def gone() -> None:
    raise RuntimeError("the connection is gone")


def test_a_fault_in_taking_down_leaves_a_success(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clumsy(monkeypatch, gone)
    assert workshop.train()["steps"] == 5
    assert "the engine could not be taken down: the connection is gone" in caplog.text
    assert "the process group could not be taken down" in caplog.text


def test_a_fault_in_taking_down_hides_no_error(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    clumsy(monkeypatch, gone)
    poisoned(monkeypatch, {1, 2, 3})
    with pytest.raises(InputError, match="3 optimizer steps in a row"):
        workshop.train(row_tokens=64, micro_batch=64)


def test_ranks_that_would_abort_in_teardown_have_succeeded(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    clumsy(monkeypatch, os.abort)
    assert workshop.train(tasks=2)["steps"] == 5


def test_an_error_on_every_rank_is_the_users_own(workshop: Workshop) -> None:
    with pytest.raises(InputError, match=r"trainer\.max_length=8"):
        workshop.train(tasks=2, max_length=8)


def test_a_rank_that_fails_is_named_with_its_log(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Trained.forward

    def forward(self: Trained, batch: Any) -> Any:
        if os.environ.get("RANK") == "1":
            raise RuntimeError("device lost")
        return whole(self, batch)

    monkeypatch.setattr(Trained, "forward", forward)
    with pytest.raises(QupError, match=r"rank 1 of 2 failed: RuntimeError: device lost.* log: .*rank-1.log"):
        workshop.train(tasks=2)


def test_a_template_that_leaves_the_assistant_out_is_refused(tmp_path: Path, stream: Path) -> None:
    from tests.helpers.tiny import make_tiny

    student = make_tiny(
        tmp_path / "student",
        chat_template="{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}{% endif %}{% endfor %}",
    )
    with pytest.raises(InputError, match="leaves the assistant's part out"):
        Workshop(tmp_path / "run", student, stream).train()
