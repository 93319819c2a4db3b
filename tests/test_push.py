"""What `qup export --push` sends to a hub, and what it refuses before it writes anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from rich.console import Console

from qup.errors import InputError, QupError
from qup.export import export
from qup.push import push, target
from tests.analysis.world import World, build_study, lab_cells
from tests.helpers.lab import ROOT
from tests.helpers.uploads import TOKEN, Repository, Uploads
from tests.rehearsal.servers import serving

CELL = "lab_foreign/oracle_refined/sft"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("push")
    folder, _ = build_study(
        root, World(lab_cells(arms=("oracle_refined",), objectives=("sft",), students=(("lab_foreign", 0.0),)), problems=20), "night"
    )
    (root / "multirun").mkdir()
    (root / "multirun" / "night").symlink_to(folder)
    return root / "multirun"


@pytest.fixture
def hub() -> Iterator[tuple[Uploads, str]]:
    uploads = Uploads()
    with serving(uploads.app()) as address:
        yield uploads, address


def qup_export(shown: Path, address: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as it is typed; huggingface_hub takes its address from $HF_ENDPOINT when it is imported."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "HF_HOME": str(shown / "hf")}
    command = [sys.executable, "-m", "qup", "--dir", str(shown), "export", *words]
    return subprocess.run(command, env={**clean, **own, **environment}, capture_output=True, text=True, timeout=200)


def test_a_model_goes_into_a_private_repository_of_that_name(shown: Path, hub: tuple[Uploads, str], tmp_path: Path) -> None:
    uploads, address = hub
    done = qup_export(shown, address, CELL, str(tmp_path / "model"), "--push", "me/my-student")
    assert done.returncode == 0, done.stderr
    (made,) = uploads.repositories.items()
    assert made[0] == "models/me/my-student" and made[1].private
    sent = {
        path.relative_to(tmp_path / "model").as_posix(): path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()
    }
    assert {"config.json", "README.md"} <= sent.keys()
    assert made[1].files == {".gitattributes": b"", **sent}
    assert made[1].messages == [f"model of {CELL}, study night, by qup"]
    assert f"pushed  {address}/me/my-student (private)" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


def test_a_stream_is_a_data_set_and_public_only_where_that_is_said(shown: Path, hub: tuple[Uploads, str], tmp_path: Path) -> None:
    uploads, address = hub
    done = qup_export(shown, address, f"stream/{CELL}", str(tmp_path / "stream"), "--push", "me/traces", "--public")
    assert done.returncode == 0, done.stderr
    assert {"train.jsonl", "train.parquet", "README.md"} <= uploads.repositories["datasets/me/traces"].files.keys()
    assert not uploads.repositories["datasets/me/traces"].private


@pytest.mark.parametrize(
    ("repo", "environment", "why"),
    [
        ("me/a--b", {}, "--push=me/a--b: Cannot have -- or .. in repo_id; OWNER/NAME is valid"),
        ("me/a b", {}, "OWNER/NAME is valid"),
        ("datasets/me/a", {}, "OWNER/NAME is valid"),
        ("mine", {}, "--push=mine: whose it is has to be said; OWNER/NAME is valid"),
        ("", {}, "OWNER/NAME is valid"),
        ("me/a", {"HF_TOKEN": ""}, "--push=me/a: $HF_TOKEN is not set"),
        ("me/a", {"HF_HUB_OFFLINE": "1"}, "$HF_HUB_OFFLINE says that the hub is not to be asked"),
    ],
)
def test_what_can_be_told_without_the_hub_is_refused_before_anything_is_written(
    shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: str, environment: dict[str, str], why: str
) -> None:
    for name, value in {"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as refused:
        export(CELL, tmp_path / "model", None, shown, Console(quiet=True), repo=repo)
    assert why in str(refused.value) and TOKEN not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_public_without_a_repository_is_refused(shown: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--public: is for --push"):
        export(CELL, tmp_path / "model", None, shown, Console(quiet=True), public=True)


def test_a_repository_that_holds_something_or_is_open_to_all_is_refused(hub: tuple[Uploads, str], monkeypatch: pytest.MonkeyPatch) -> None:
    uploads, address = hub
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    api = HfApi(address, token=TOKEN)
    uploads.repositories["models/me/full"] = Repository(True, {".gitattributes": b"", "config.json": b"{}"})
    uploads.repositories["models/me/open"] = Repository(False, {".gitattributes": b""})
    with pytest.raises(InputError, match=r"--push=me/full: is there already and not empty \(1 files\)"):
        target("me/full", "model", api=api)
    with pytest.raises(InputError, match="--push=me/open: is there already and public"):
        target("me/open", "model", api=api)
    assert target("me/open", "model", public=True, api=api).public
    assert not target("me/open", "dataset", api=api).public, "the data set of that name is another repository"


def test_a_token_that_the_hub_does_not_know_is_refused_with_the_hubs_words(
    hub: tuple[Uploads, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(QupError, match=r"nothing was written; is \$HF_TOKEN right\?") as refused:
        target("me/a", "model", api=HfApi(hub[1], token="hf_another"))
    assert "hf_another" not in str(refused.value) and "Invalid user token" in str(refused.value)
    assert hub[0].asked == ["GET /api/whoami-v2"]


def test_a_hub_that_refuses_the_files_leaves_the_folder_and_says_how_to_send_it(
    hub: tuple[Uploads, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, address = hub
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    (tmp_path / "config.json").write_text("{}")
    to = target("me/a", "model", api=HfApi(address, token=TOKEN))
    uploads.refuses = "/preupload/"
    with pytest.raises(QupError) as refused:
        push(to, tmp_path, "message")
    assert f"`hf upload me/a {tmp_path} --repo-type model` sends it again" in str(refused.value)
    assert TOKEN not in str(refused.value) + repr(to)
    assert (tmp_path / "config.json").exists()


def test_a_card_names_no_folder_of_this_machine(shown: Path, tmp_path: Path) -> None:
    from qup.analysis.results.shelf import Shelf
    from qup.export import model_card, stream_card
    from qup.study import Cell, find_study

    study = find_study("night", shown)
    cell = study.cells[0]
    settings = {**cell.config, "model": {**cell.config["model"], "path": "/home/me/secret/student"}}
    settings["problems"] = {**settings["problems"], "path": "data/private/train.jsonl"}
    own = Cell(cell.label, settings, cell.stages)
    for card in (model_card(study, Shelf(study.open_store()), own), stream_card(study, Shelf(study.open_store()), own, 20)):
        assert "secret" not in card and "private" not in card
        assert "student" in card and "train.jsonl" in card
