"""What a run survives, and what it says when it does not."""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qup.config.schema import Zero
from qup.errors import InputError, Interrupted, QupError, StoreError
from qup.training.student import Trained
from qup.training.worker import die_with_parent
from tests.training.world import Workshop, same, stream_table

LONG = {"epochs": 400, "schedule": "constant"}
"""Far longer than any of these tests lets it run."""


def pid_of(work: Workshop, rank: int) -> int | None:
    for path in work.work.glob(f"ranks/*/rank-{rank}.pid"):
        return int(path.read_text())
    return None


def signal_once(work: Workshop, rank: int, number: int, after: int) -> Callable[[], bool]:
    """Sends a signal to a rank once so many steps are done; never asks to stop."""
    sent: list[int] = []

    def stopping() -> bool:
        if not sent and work.progress and work.progress[-1][0] >= after:
            pid = pid_of(work, rank)
            assert pid is not None
            sent.append(pid)
            os.kill(pid, number)
        return False

    return stopping


def start(work: Workshop, **settings: Any) -> int:
    """The stage in a process of its own; 0 done, 75 interrupted."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        gc.freeze()
        die_with_parent(parent)
        status = 1
        try:
            work.train(**settings)
            status = 0
        except Interrupted:
            status = 75
        except BaseException as error:
            (work.root / "error").write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)
    return pid


def end(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def await_(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.002)
    return found


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all_and_is_named(workshop: Workshop, rank: int) -> None:
    began = time.monotonic()
    with pytest.raises(QupError, match=rf"rank {rank} of 2 was killed by SIGKILL"):
        workshop.train(tasks=2, stopping=signal_once(workshop, rank, signal.SIGKILL, 1), **LONG)
    assert time.monotonic() - began < 60
    assert not alive(workshop)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_frozen_rank_ends_all_and_is_named(workshop: Workshop, rank: int) -> None:
    with pytest.raises(QupError, match=rf"rank {rank} of 2 said nothing for 3 s"):
        workshop.train(tasks=2, stopping=signal_once(workshop, rank, signal.SIGSTOP, 1), timeout_s=3.0, **LONG)
    assert not alive(workshop)


def alive(work: Workshop) -> list[int]:
    found = [pid_of(work, rank) for rank in (0, 1)]
    return [pid for pid in found if pid is not None and Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_to_one_rank_saves_and_ends_all(shop: Callable[..., Workshop], number: int) -> None:
    cut = shop("cut")
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        cut.train(tasks=2, stopping=signal_once(cut, 1, number, 2), **LONG)
    states = [json.loads(path.read_text()) for path in cut.checkpoints.glob("step-*/whole.json")]
    assert states and states[-1]["step"] >= 2


def test_signalled_again_and_again_is_bit_for_bit_undisturbed(shop: Callable[..., Workshop]) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train(tasks=2, epochs=80)
    for after, rank, number in ((1, 0, signal.SIGTERM), (30, 1, signal.SIGUSR2), (60, 1, signal.SIGTERM)):
        cut.progress.clear()
        with pytest.raises(Interrupted, match="its checkpoint is kept"):
            cut.train(tasks=2, epochs=80, stopping=signal_once(cut, rank, number, after))
    cut.train(tasks=2, epochs=80)
    assert same(cut.weights(), whole.weights())
    assert [json.loads(line)["step"] for line in (cut.out / "steps.jsonl").read_text().splitlines()] == list(range(1, 401))


def test_the_parent_is_asked_and_all_ranks_save(workshop: Workshop) -> None:
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        workshop.train(tasks=2, stop_at=2, **LONG)
    assert list(workshop.checkpoints.glob("step-*/whole.json"))


@pytest.mark.parametrize("zero", [Zero(1), Zero(3)], ids=str)
def test_all_killed_and_run_again_is_bit_for_bit_undisturbed(shop: Callable[..., Workshop], zero: Zero) -> None:
    whole, cut = shop("whole"), shop("cut")
    whole.train(zero=zero, tasks=2, epochs=3, checkpoint_steps=2)
    pid = start(cut, zero=zero, tasks=2, epochs=3, checkpoint_steps=2)
    await_(lambda: list(cut.checkpoints.glob("step-*/whole.json")))
    os.kill(pid, signal.SIGKILL)
    end(pid)
    await_(lambda: not alive(cut), 5)
    cut.train(zero=zero, tasks=2, epochs=3, checkpoint_steps=2)
    assert same(cut.weights(), whole.weights())


def test_killed_while_a_checkpoint_is_written(shop: Callable[..., Workshop]) -> None:
    """Ten times over: killed the moment a directory without its marker is seen."""
    whole, cut = shop("whole"), shop("cut")
    whole.train(epochs=4)
    torn = 0
    for _ in range(10):
        known = {path.name for path in cut.checkpoints.glob("step-*/whole.json")}
        pid = start(cut, epochs=4, checkpoint_steps=1)
        await_(lambda pid=pid: _half_written(cut) or os.waitpid(pid, os.WNOHANG)[0])
        try:
            os.kill(pid, signal.SIGKILL)
            end(pid)
        except (ProcessLookupError, ChildProcessError):
            break
        torn += bool(_half_written(cut))
        assert len(known) <= 2
    assert torn >= 3
    cut.train(epochs=4)
    assert same(cut.weights(), whole.weights())
    steps = [json.loads(line)["step"] for line in (cut.out / "steps.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 21))


def test_a_rank_killed_in_the_middle_of_a_checkpoint_is_what_is_told(
    shop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others see a broken collective while they save, which is not what went wrong."""
    from qup.training.engine import Engine

    whole, cut = shop("whole"), shop("cut")
    whole.train(tasks=2)
    save = Engine.save

    def killed(self: Engine, root: Path, tag: str) -> None:
        if self.world.rank == 1 and tag.endswith("4"):
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, root, tag)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "save", killed)
        with pytest.raises(QupError, match="rank 1 of 2 was killed by SIGKILL"):
            cut.train(tasks=2, checkpoint_steps=2)
    assert [path.parent.name for path in cut.checkpoints.glob("step-*/whole.json")] == ["step-00000002"]
    cut.train(tasks=2)
    assert same(cut.weights(), whole.weights())


def _half_written(work: Workshop) -> list[Path]:
    return [path for path in work.checkpoints.glob("step-*") if not (path / "whole.json").exists()]


def test_two_runs_on_one_directory(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from qup.training.checkpoint import Checkpoints

    pid = start(workshop, checkpoint_steps=1, **LONG)
    await_(lambda: list(workshop.checkpoints.glob("step-*/whole.json")))
    whole = Checkpoints.hold
    monkeypatch.setattr(Checkpoints, "hold", lambda self: whole(self, 0.3))
    try:
        with pytest.raises(StoreError, match=f"in use by process {pid}"):
            workshop.train(**LONG)
    finally:
        os.kill(pid, signal.SIGKILL)
        end(pid)


def test_a_second_run_of_several_ranks_leaves_the_first_alone(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from qup.training.checkpoint import Checkpoints

    pid = start(workshop, tasks=2, checkpoint_steps=1, **LONG)
    await_(lambda: list(workshop.checkpoints.glob("step-*/whole.json")))
    first = pid_of(workshop, 0)
    whole = Checkpoints.hold
    monkeypatch.setattr(Checkpoints, "hold", lambda self: whole(self, 0.3))
    try:
        with pytest.raises(StoreError, match=f"in use by process {first}"):
            workshop.train(tasks=2, **LONG)
        done = max(path.name for path in workshop.checkpoints.glob("step-*"))
        await_(lambda: max(path.name for path in workshop.checkpoints.glob("step-*")) > done)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        end(pid)


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


def test_a_tuned_lab_student_ends_its_answers(tmp_path: Path) -> None:
    """The stop token is learnt: a lab student that knows nothing yet ends by it, after a few epochs on the lab's traces."""
    import random

    from transformers import AutoModelForCausalLM, AutoTokenizer

    from qup.config.schema import LabStudent
    from qup.files import write_table
    from qup.lab import chains, styles, tokenizer
    from qup.lab.student import new_model, save_model
    from qup.models import encode_prompt

    draw = random.Random(0)
    problems = [chains.draw(draw, "pretraining", 1, 1, 50) for _ in range(60)]
    rows = [(f"p{i}", problem.question, styles.render("native", problem, draw)) for i, problem in enumerate(problems)]
    stream, student = tmp_path / "stream.parquet", tmp_path / "student"
    write_table(stream, stream_table(rows))
    save_model(new_model(LabStudent(), {word: i for i, word in enumerate(tokenizer.vocabulary())}), student)
    work = Workshop(tmp_path / "run", student, stream, "lab")

    def ended(directory: Path) -> int:
        model, words = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
        found = 0
        for _, question, _ in rows[:10]:
            ids = torch.tensor([encode_prompt(words, "lab", question)])
            out = model.generate(ids, max_new_tokens=120, do_sample=False)
            found += out[0, -1].item() == words.eos_token_id
        return found

    before = ended(student)
    work.train(epochs=10, lr=5e-3, warmup_ratio=0.1, max_length=256)
    assert before == 0 and ended(work.out / "model") >= 9


def tasks_from_outside(work: Workshop, port: int, **settings: Any) -> list[int]:
    """Two processes, each told its place as srun or torchrun tell it; the second writes elsewhere."""
    children = []
    for rank in range(2):
        env = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            gc.freeze()
            die_with_parent(parent)
            status = 1
            try:
                os.environ.update(env, GLOO_SOCKET_IFNAME="lo")
                work.out = work.root / f"out-{rank}"
                work.out.mkdir(exist_ok=True)
                metrics = work.train(env=env, **settings)
                (work.root / f"metrics-{rank}.json").write_text(json.dumps(metrics))
                status = 0
            except BaseException as error:
                (work.root / f"error-{rank}").write_text(str(error))
            finally:
                os._exit(status)
        children.append(pid)
    return children


def test_ranks_started_by_srun_or_torchrun(shop: Callable[..., Workshop]) -> None:
    here, outside = shop("here"), shop("outside")
    here.train(tasks=2)
    assert [end(pid) for pid in tasks_from_outside(outside, free_port())] == [0, 0]
    outside.out = outside.root / "out-0"
    assert same(outside.weights(), here.weights())
    assert not list((outside.root / "out-1").iterdir())
    assert json.loads((outside.root / "metrics-1.json").read_text())["steps"] == 5


def test_a_task_from_outside_says_which_other_rank_died(workshop: Workshop) -> None:
    children = tasks_from_outside(workshop, free_port(), **LONG)
    await_(lambda: len((workshop.work / "steps.jsonl").read_text()) > 0 if (workshop.work / "steps.jsonl").exists() else False)
    os.kill(int(next(workshop.work.glob("ranks-1/*/rank-1.pid")).read_text()), signal.SIGKILL)
    assert [end(pid) for pid in children] == [1, 1]
    assert "rank 1 of 2 was killed by SIGKILL" in (workshop.root / "error-1").read_text()
    assert "rank 1 of 2 ended without a word" in (workshop.root / "error-0").read_text()


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("gpus", "tasks", "env", "expected"),
    [
        ("0", 1, {}, (1, 0, 1, 0)),
        ("0", 2, {}, (2, 0, 2, 0)),
        ("a100:4", 1, {}, (4, 0, 4, 0)),
        ("8", 8, {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}, (16, 9, 1, 1)),
        ("8", 1, {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, (16, 8, 8, 0)),
        ("8", 1, {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}, (8, 3, 1, 3)),
    ],
)
def test_how_many_ranks_and_which_are_here(tmp_path: Path, gpus: str, tasks: int, env: dict[str, str], expected: tuple[int, ...]) -> None:
    from qup.config.schema import Resources
    from qup.pipeline.context import Context
    from qup.training.launch import placement

    found = placement(Context(tmp_path, tmp_path, tmp_path, Resources(gpus=gpus, tasks=tasks)), env)
    assert (found.size, found.first, found.here, found.local) == expected
