"""What leaves qup is read by the tools it is meant for."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from qup.errors import InputError
from qup.export import export
from tests.analysis.world import World, build_study, lab_cells


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("export")
    cells = lab_cells(arms=("slm_rft", "oracle_refined"), objectives=("sft",), students=(("lab_foreign", 0.0),))
    folder, _ = build_study(root, World(cells, problems=20), "night")
    (root / "multirun").mkdir()
    (root / "multirun" / "night").symlink_to(folder)
    return root / "multirun"


def run(what: str, to: Path, shown: Path, study: str | None = None) -> int:
    return export(what, to, study, shown, Console(quiet=True))


def test_a_stream_is_chat_data_that_datasets_and_trl_read(shown, tmp_path) -> None:
    to = tmp_path / "stream"
    assert run("stream/lab_foreign/oracle_refined/sft", to, shown) == 0
    rows = [json.loads(line) for line in (to / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]
    assert "<script>" in rows[0]["messages"][1]["content"]
    assert pq.read_table(to / "train.parquet").to_pylist() == rows
    datasets = pytest.importorskip("datasets")
    for loaded in (
        datasets.load_dataset("json", data_files=str(to / "train.jsonl"), split="train", cache_dir=str(tmp_path / "c")),
        datasets.load_dataset(str(to), split="train", cache_dir=str(tmp_path / "d")),
    ):
        assert loaded.num_rows == 20
        assert loaded[3]["messages"] == rows[3]["messages"]
    trl = pytest.importorskip("trl.data_utils")
    assert trl.is_conversational(loaded[0])


def test_llama_factory_and_axolotl_find_the_columns(shown, tmp_path) -> None:
    yaml = pytest.importorskip("yaml")
    to = tmp_path / "stream"
    run("stream/lab_foreign/slm_rft/sft", to, shown)
    (entry,) = json.loads((to / "dataset_info.json").read_text()).values()
    row = json.loads((to / "train.jsonl").read_text().splitlines()[0])
    tags = entry["tags"]
    assert (to / entry["file_name"]).exists()
    for message in row[entry["columns"]["messages"]]:
        assert message[tags["role_tag"]] in (tags["user_tag"], tags["assistant_tag"], tags["system_tag"])
        assert isinstance(message[tags["content_tag"]], str)
    (dataset,) = yaml.safe_load((to / "axolotl.yaml").read_text())["datasets"]
    assert row[dataset["field_messages"]][-1][dataset["message_property_mappings"]["role"]] in dataset["roles_to_train"]
    assert yaml.safe_load((to / "README.md").read_text().split("---")[1])["license"] == "other"


def test_a_stream_is_found_by_its_key(shown, tmp_path) -> None:
    record = json.loads((shown / "night" / "study.json").read_text())
    key = record["cells"][1]["stages"]["stream"]
    assert run(f"stream/{key[:12]}", tmp_path / "s", shown, "night") == 0


def test_cards_name_recipe_licence_and_numbers_with_intervals(shown, tmp_path) -> None:
    run("stream/lab_foreign/oracle_refined/sft", tmp_path / "s", shown)
    run("lab_foreign/oracle_refined/sft", tmp_path / "m", shown)
    stream, model = (tmp_path / "s" / "README.md").read_text(), (tmp_path / "m" / "README.md").read_text()
    assert "provider's terms" in stream
    assert "refine" in stream
    assert "toy" in stream
    assert (tmp_path / "m" / "config.json").exists()
    assert "| mean |" in model
    assert "[" in model.split("| mean |")[1].splitlines()[0]
    assert "`train/" in model


@pytest.mark.parametrize(
    ("what", "message"),
    [("nothing", "no such cell"), ("lab_foreign/base", "untuned student"), ("stream/zzzzzzzz", "no such cell or stream")],
)
def test_what_is_not_there_is_one_clear_error(what, message, shown, tmp_path) -> None:
    with pytest.raises(InputError, match=message):
        run(what, tmp_path / "x", shown)
    assert not (tmp_path / "x").exists()


def test_a_folder_with_something_in_it_is_left_alone(shown, tmp_path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("")
    with pytest.raises(InputError, match="not empty"):
        run("1", tmp_path / "x", shown)


def test_pruned_weights_are_named(shown, tmp_path) -> None:
    cells = lab_cells(arms=("slm_rft",), objectives=("sft",), students=(("lab_foreign", 0.0),))
    folder, store = build_study(tmp_path, World(cells, problems=4), "pruned")
    key = next(c["stages"]["train"] for c in json.loads((folder / "study.json").read_text())["cells"] if "train" in c["stages"])
    path = store.path("train", key) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if "/" not in name}
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="keep_weights"):
        export("lab_foreign/slm_rft/sft", tmp_path / "m", str(folder), tmp_path, Console(quiet=True))


def test_a_trained_model_loads_where_it_was_exported_to(tmp_path, shown) -> None:
    transformers = pytest.importorskip("transformers")
    from tests.helpers.tiny import make_tiny

    make_tiny(tmp_path / "tiny")
    cells = lab_cells(arms=("slm_rft",), objectives=("sft",), students=(("lab_foreign", 0.0),))
    folder, _store = build_study(tmp_path, World(cells, problems=4, model=tmp_path / "tiny"), "real")
    assert run("lab_foreign/slm_rft/sft", tmp_path / "out", folder.parent, "real") == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.hidden_size == 32
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
