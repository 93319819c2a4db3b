"""Artifacts: whole or absent, equal data has an equal digest, corruption is noticed and set aside."""

import dataclasses
import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qup.errors import CorruptArtifact, LeaseLost, StoreError
from qup.files import write_json
from qup.store import Store, save_table
from qup.store.digest import data_digest
from qup.store.store import Record

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", None]})


def record(key="k1", identity="same"):
    return Record("stream", 1, key, {"f": 1}, {}, "code", identity)


def publish(store, key="k1", identity="same", table=TABLE, metrics=None):
    lease = store.acquire("stream", key, {}, lambda: False)
    out = store.draft("stream", key)
    save_table(out, "stream", table)
    try:
        return store.publish(out, record(key, identity), metrics or {"n": 3}, lease, {"seconds": 1.0})
    finally:
        lease.release()


def test_published_artifact_reads_back(tmp_path):
    store = Store(tmp_path)
    assert store.get("stream", "k1") is None
    publish(store)
    found = store.get("stream", "k1")
    assert found.table("stream").equals(TABLE)
    assert found.metrics == {"n": 3}
    assert not store.lease_path("stream", "k1").exists()


def test_digest_is_of_rows_not_of_files(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    pq.write_table(TABLE, a / "t.parquet", compression="zstd", row_group_size=1)
    pq.write_table(TABLE, b / "t.parquet", compression="none")
    assert data_digest(a) == data_digest(b)
    pq.write_table(TABLE.slice(0, 2), b / "t.parquet")
    assert data_digest(a) != data_digest(b)


def test_draft_is_no_artifact(tmp_path):
    store = Store(tmp_path)
    out = store.draft("stream", "k1")
    save_table(out, "stream", TABLE)
    assert store.get("stream", "k1") is None
    assert list(store.artifacts()) == []


def test_changed_byte_is_noticed_on_reading(tmp_path):
    store = Store(tmp_path)
    path = publish(store).path / "stream.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifact, match=r"checksum of stream\.parquet differs"):
        store.get("stream", "k1").table("stream")


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest"])
def test_damaged_artifact_is_set_aside_and_counts_as_missing(tmp_path, damage):
    store = Store(tmp_path)
    artifact = publish(store)
    if damage == "truncate":
        os.truncate(artifact.path / "stream.parquet", 10)
    elif damage == "remove":
        (artifact.path / "stream.parquet").unlink()
    else:
        (artifact.path / "manifest.json").write_text("{")
    with pytest.raises(CorruptArtifact):
        store.get("stream", "k1")
    assert store.get_sound("stream", "k1") is None
    assert len(list((tmp_path / "corrupt").iterdir())) == 1


def test_publication_is_create_once(tmp_path):
    store = Store(tmp_path)
    first = publish(store)
    lease = store.acquire("stream", "k2", {}, lambda: False)
    out = store.draft("stream", "k1")
    save_table(out, "stream", TABLE.slice(0, 1))
    late = dataclasses.replace(record("k1"))
    kept = store.publish(out, late, {"n": 1}, lease, {})
    assert kept.metrics == first.metrics
    assert kept.digest == first.digest


def test_who_lost_the_lease_publishes_nothing(tmp_path):
    store = Store(tmp_path)
    lease = store.acquire("stream", "k1", {}, lambda: False)
    store.lease_path("stream", "k1").unlink()
    out = store.draft("stream", "k1")
    save_table(out, "stream", TABLE)
    with pytest.raises(LeaseLost):
        store.publish(out, record(), {}, lease, {})
    assert store.get("stream", "k1") is None
    assert not out.exists()


def test_equal_work_is_adopted(tmp_path):
    store = Store(tmp_path)
    publish(store, "k1", identity="equal")
    twin = store.find("stream", "equal")
    lease = store.acquire("stream", "k2", {}, lambda: False)
    adopted = store.adopt(twin, record("k2", "equal"), lease)
    lease.release()
    assert adopted.digest == twin.digest
    assert adopted.manifest["adopted_from"] == "k1"
    shutil.rmtree(store.path("stream", "k1"))
    assert store.get("stream", "k2").table("stream").equals(TABLE)
    assert store.find("stream", "other") is None


def test_waiting_for_a_lease_ends_when_someone_else_published(tmp_path):
    store = Store(tmp_path)
    publish(store)
    assert store.acquire("stream", "k1", {}, lambda: False) is None


def test_unwritable_store_is_refused_by_name(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(StoreError, match=r"store\.dir=.*not writable"):
        Store(blocker / "store").check_writable()


def test_full_disk_is_refused(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1 << 20})
    monkeypatch.setattr("qup.store.store.shutil.disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match="only 1 MiB left"):
        Store(tmp_path).check_writable()


def with_weights(store, key):
    lease = store.acquire("train", key, {}, lambda: False)
    out = store.draft("train", key)
    (out / "model").mkdir()
    (out / "model" / "weights").write_text("weights")
    (out / "steps.jsonl").write_text("{}")
    made = store.publish(out, dataclasses.replace(record(key), stage="train"), {}, lease, {})
    lease.release()
    return made


def take_weights(artifact):
    kept = {"steps.jsonl": artifact.manifest["files"]["steps.jsonl"]}
    write_json(artifact.path / "manifest.json", dict(artifact.manifest, files=kept))
    shutil.rmtree(artifact.path / "model")


def test_weights_that_go_while_an_artifact_is_read_do_not_make_it_corrupt(tmp_path, monkeypatch):
    store = Store(tmp_path)
    made = with_weights(store, "k1")
    real = json.loads

    def loads(text):
        monkeypatch.undo()
        take_weights(made)
        return real(text)

    monkeypatch.setattr("qup.store.artifact.json.loads", loads)
    found = store.get("train", "k1")
    assert list(found.manifest["files"]) == ["steps.jsonl"]


def test_weights_that_go_while_they_are_adopted_are_not_adopted(tmp_path):
    store = Store(tmp_path)
    made = with_weights(store, "k1")
    take_weights(made)
    lease = store.acquire("train", "k2", {}, lambda: False)
    assert store.adopt(made, dataclasses.replace(record("k2"), stage="train"), lease) is None
    assert not store.exists("train", "k2")
    assert not list((tmp_path / "train").glob(".k2.out.*"))
    lease.release()
