"""W&B beside the store: what stands in the .wandb files is what stands in the local log, and W&B can't hurt a run."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qup.config.fingerprint import plain
from qup.config.schema import Tracking
from qup.errors import InputError
from qup.launch.results import conclude
from qup.tracking import open_tracker, run_id, study_folder, sync_study, track_report
from qup.tracking import sync as sync_module
from qup.tracking import tracker as tracker_module
from qup.tracking.redact import HIDDEN, redact
from qup.tracking.spec import mode_of, read_history
from tests.analysis.world import World, build_study, lab_cells

OFFLINE = Tracking(name="wandb", mode="offline", project="qup-test", tags=["mine"])
LABELS = {"study": "night", "cell": "m/slm_rft/sft", "model": "m", "stream": "slm_rft"}
BLOCK = 32768


def records(path: Path) -> list[Any]:
    """The protobuf records of a .wandb file: a 7-byte header, then LevelDB's log framing."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    found, part, place = [], b"", 7
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        if kind == 0:
            place += left
            continue
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            found.append(record)
            part = b""
    return found


def the_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.wandb")
    return path


def history(path: Path) -> list[tuple[int, dict[str, Any]]]:
    made = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            made.append((record.history.step.num, {name: value for name, value in values.items() if not name.startswith("_")}))
    return made


def the_run(path: Path) -> Any:
    return next(record.run for record in records(path) if record.WhichOneof("record_type") == "run")


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            found |= {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.summary.update}
    return found


def test_a_requeued_stage_has_each_step_once_offline(tmp_path) -> None:
    settings = {"identity": "key1", "kind": "train", "labels": LABELS, "config": {"trainer": {"objective": "sft"}}, "directory": tmp_path}
    script = (
        "import json, os, sys; from pathlib import Path; from qup.tracking import open_tracker; from qup.config.schema import Tracking\n"
        "s = json.loads(sys.argv[1]); s['directory'] = Path(s['directory'])\n"
        "t = open_tracker(Tracking(name='wandb', mode='offline', project='qup-test', tags=['mine']), **s)\n"
        "[t.log(i, {'nll': 1 / i}) for i in range(1, 30)]; os._exit(9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, json.dumps(settings, default=str)], check=False)
    assert killed.returncode == 9
    with open_tracker(OFFLINE, **settings) as tracker:
        for step in range(21, 51):
            tracker.log(step, {"nll": 1 / step})
        tracker.summary({"n_train": 7, "timings": {"seconds": 1.5}, "bad": float("nan")})
    path = the_file(tmp_path)
    assert history(path) == [(step, {"nll": 1 / step}) for step in range(1, 51)]
    assert {"n_train": 7, "timings.seconds": 1.5}.items() <= summary(path).items()
    run = the_run(path)
    assert (run.run_id, run.run_group, run.job_type, run.project) == (run_id("train", "key1"), "night", "train", "qup-test")
    assert set(run.tags) == {"mine", "m", "slm_rft", "sft"}


def test_a_log_that_the_stage_writes_anyway_is_followed(tmp_path) -> None:
    steps = tmp_path / "steps.jsonl"
    steps.write_text('{"step": 1, "nll": 2.0}\n{"step": 2, "nll": null, "skipped": true}\n{"step": 3, "nl')
    with open_tracker(OFFLINE, identity="k", kind="train", labels=LABELS, config={}, directory=tmp_path / "w", steps=steps):
        pass
    assert history(the_file(tmp_path)) == [(1, {"nll": 2.0}), (2, {"skipped": True})]


def test_unreachable_wandb_neither_slows_nor_stops(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(tracker_module, "PATIENCE_S", 1.5)
    assert mode_of(Tracking(name="wandb")) == "online"
    began = time.monotonic()
    tracker = open_tracker(Tracking(name="wandb"), identity="k", kind="train", labels=LABELS, config={}, directory=tmp_path)
    for step in range(1, 200):
        tracker.log(step, {"nll": 0.5})
    assert time.monotonic() - began < 1.0
    tracker.close()
    assert time.monotonic() - began < 8.0
    assert "qup sync" in caplog.text
    assert tracker._child is not None
    assert tracker._child.poll() is not None
    assert len(read_history(tmp_path / tracker.run_id / "history.jsonl")) == 199


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("")
    with open_tracker(OFFLINE, identity="k", kind="train", labels=LABELS, config={}, directory=tmp_path / "file") as tracker:
        tracker.log(1, {"nll": 1.0})
    assert "is not tracked" in caplog.text


def test_the_follower_ends_with_its_stage(tmp_path) -> None:
    script = (
        "import sys, os; from pathlib import Path; from qup.tracking import open_tracker; from qup.config.schema import Tracking\n"
        "t = open_tracker(Tracking(name='wandb', mode='offline'), identity='k', kind='train', labels={}, config={}, directory=Path(sys.argv[1]))\n"
        "print(t._child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    out = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    pid = int(out.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the follower outlived its stage")
    assert not list(tmp_path.rglob("*.wandb"))


def test_nothing_tracked_writes_nothing(tmp_path) -> None:
    with open_tracker(Tracking(), identity="k", kind="train", labels=LABELS, config={}, directory=tmp_path) as tracker:
        tracker.log(1, {"nll": 1.0})
        tracker.summary({"n": 1})
    assert tracker.run_id == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environment", "mode", "expected"),
    [
        ({}, "auto", "offline"),
        ({"WANDB_API_KEY": "x" * 40}, "auto", "online"),
        ({"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "offline"}, "auto", "offline"),
        ({}, "online", "online"),
    ],
)
def test_mode_follows_the_key(environment, mode, expected, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert mode_of(Tracking(name="wandb", mode=mode)) == expected


def test_secrets_are_hidden() -> None:
    settings = {
        "oracle": {"base_url": "https://me:pass@host/v1", "api_key_env": "MY_KEY", "api_key": "sk-1", "body": {"user": "x"}},
        "cluster": {"train": {"setup": ["export WANDB_API_KEY=abc"], "extra": {}}},
        "note": "uses verysecretvalue here",
        "trainer": {"lr": 0.1, "max_tokens": 5},
    }
    made = redact(settings, {"OPENAI_API_KEY": "verysecretvalue", "HOME": "here"})
    text = json.dumps(made)
    assert "pass@" not in text
    assert "sk-1" not in text
    assert "abc" not in text
    assert "verysecretvalue" not in text
    assert made["note"] == f"uses {HIDDEN} here"
    assert made["trainer"] == {"lr": 0.1, "max_tokens": 5}
    assert made["oracle"]["api_key_env"] == "MY_KEY"


def tracked_study(tmp_path: Path) -> Path:
    cells = lab_cells(arms=("slm_rft",), objectives=("sft",), students=(("lab_foreign", 0.0),))
    folder, _ = build_study(tmp_path, World(cells, problems=8))
    record = json.loads((folder / "study.json").read_text())
    for cell in record["cells"]:
        cell["config"]["tracking"] = plain(Tracking(name="wandb", mode="offline", project="qup-test", artifacts=True))
    (folder / "study.json").write_text(json.dumps(record))
    return folder


def test_sync_replays_a_study_and_is_idempotent(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "nobodymayseethis")
    folder = tracked_study(tmp_path)
    report = folder / "report"
    (report / "figures").mkdir(parents=True)
    (report / "cells.csv").write_text("cell,total\na,1.5\n")
    console = Console(width=200)
    assert sync_study(folder, console) == 0
    assert "4 sent" in capsys.readouterr().out
    record = json.loads((folder / "study.json").read_text())
    trained = next(cell for cell in record["cells"] if "train" in cell["stages"])
    own = folder / "wandb" / run_id("train", trained["stages"]["train"])
    local = read_history(tmp_path / "store" / "train" / trained["stages"]["train"] / "steps.jsonl")
    assert [(entry["step"], {name: value for name, value in entry.items() if name != "step"}) for entry in local] == history(the_file(own))
    run = the_run(the_file(own))
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["trainer"] == trained["config"]["trainer"]
    assert summary(the_file(own))["n_train"] == 8
    kinds = {record.WhichOneof("record_type") for record in records(the_file(own))}
    assert "request" in kinds or "artifact" in kinds
    before = sorted(path.name for path in (folder / "wandb").rglob("*.wandb"))
    assert sync_study(folder, console) == 0
    assert "0 sent, 4 there already" in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "wandb").rglob("*.wandb")) == before
    everything = b"".join(path.read_bytes() for path in (folder / "wandb").rglob("*") if path.is_file())
    assert b"nobodymayseethis" not in everything
    (report / "cells.csv").write_text("cell,total\na,2.5\n")
    assert sync_study(folder, console) == 0
    assert "1 sent, 3 there already" in capsys.readouterr().out
    assert len(list((folder / "wandb").rglob("*.wandb"))) == 4


def test_a_study_ends_with_a_run_of_its_table_and_figures(tmp_path, capsys) -> None:
    folder = tracked_study(tmp_path)
    totals = conclude(folder, Console(width=200))
    assert f"W&B     offline in {folder / 'wandb'}; once there is a key, qup sync {folder.name} sends it to project qup-test" in " ".join(
        capsys.readouterr().out.splitlines()
    )
    assert set(totals) == {"lab_foreign/slm_rft/sft", "lab_foreign/base"}
    run = the_run(the_file(folder / "wandb"))
    assert (run.job_type, run.run_group, run.run_id) == ("report", "test", run_id("report", "test"))
    assert "cells" in {name.split("/")[0] for _, values in history(the_file(folder / "wandb")) for name in values}
    assert sync_study(folder, Console(width=200)) == 0
    assert "3 sent, 1 there already" in capsys.readouterr().out


def test_a_tracker_that_hangs_does_not_hold_a_study_up(tmp_path, monkeypatch, caplog) -> None:
    folder = tracked_study(tmp_path)
    (folder / "report" / "figures").mkdir(parents=True)
    (folder / "report" / "cells.csv").write_text("cell,total\na,1.5\n")
    monkeypatch.setattr(sync_module, "PATIENCE_S", 0.05)
    began = time.monotonic()
    track_report(folder)
    assert time.monotonic() - began < 6
    assert "`qup sync` sends it" in caplog.text


def test_sync_without_tracking_says_so(tmp_path) -> None:
    folder, _ = build_study(tmp_path, World(lab_cells(arms=(), students=(("lab_foreign", 0.0),)), problems=4))
    with pytest.raises(InputError, match="tracking=none"):
        sync_study(folder, Console())


def test_the_folder_of_a_study(tmp_path) -> None:
    assert study_folder(tmp_path, "night") == tmp_path / "studies" / "night" / "wandb"
