"""The stage as the pipeline calls it: artifacts in, a published directory's content out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from qup.config.schema import Model, Tracking, Zero
from qup.config.views import TrainView
from qup.errors import InputError
from qup.stages import train
from qup.tracking import study_folder
from tests.helpers.artifacts import artifact, context, publish
from tests.training.world import TRAINER, some_rows, stream_table

VIEW = TrainView(
    Model(name="tiny", template="tokenizer", device="cpu"), TRAINER, Zero(1), Tracking(), {"cell": "tiny/sft", "stream": "slm_rft"}
)


@pytest.fixture
def inputs(tmp_path: Path, students: dict[str, Path]) -> dict[str, object]:
    """A stream, and a lab student's artifact."""
    folder = tmp_path / "student-a"
    shutil.copytree(students["llama"], folder / "model")
    return {"stream": artifact(tmp_path, "stream", stream=stream_table(some_rows(20))), "student": publish(folder, "student")}


def test_the_stage_trains_the_lab_student_it_is_given(tmp_path: Path, inputs: dict[str, object]) -> None:
    ctx = context(tmp_path, key="thekey")
    metrics = train.run(VIEW, inputs, ctx)  # type: ignore[arg-type]
    assert (metrics["n_train"], metrics["steps"]) == (20, 3)
    assert json.dumps(metrics)
    card = (ctx.out / "model" / "README.md").read_text()
    assert "# tiny/sft" in card and "| train | thekey |" in card and "| stream | stream-a |" in card and "| student | student-a |" in card


def test_what_is_published_does_not_depend_on_how_fast_it_ran(tmp_path: Path, inputs: dict[str, object]) -> None:
    from qup.store.digest import data_digest

    found = []
    for name in ("one", "other"):
        ctx = context(tmp_path, name, key="thekey")
        metrics = train.run(VIEW, inputs, ctx)  # type: ignore[arg-type]
        metrics.pop("timings")
        found.append((metrics, data_digest(ctx.out)))
    assert found[0] == found[1]


def test_another_number_of_ranks_than_planned_is_refused(tmp_path: Path, inputs: dict[str, object]) -> None:
    view = replace(VIEW, world_size=8, trainer=replace(TRAINER, normalisation="dft_repo", packing=False, micro_batch=4))
    with pytest.raises(InputError, match="planned for 8, started with 1"):
        train.run(view, inputs, context(tmp_path))  # type: ignore[arg-type]


def test_the_run_is_tracked_offline(tmp_path: Path, inputs: dict[str, object]) -> None:
    ctx = context(tmp_path, key="thekey", study="thestudy")
    train.run(replace(VIEW, tracking=Tracking("wandb", mode="offline")), inputs, ctx)  # type: ignore[arg-type]
    folder = study_folder(ctx.shared.parent, "thestudy")
    assert len(list(folder.glob("*/wandb/offline-run-*/*.wandb"))) == 1
    assert json.loads(next(folder.glob("*/end.json")).read_text())["summary"]["steps"] == 3
