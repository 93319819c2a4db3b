"""The answer store: what reached the disk is found again, whatever happened beside it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qup.errors import StoreError
from qup.oracle import store as module
from qup.oracle.index import ENTRY, OffsetIndex
from qup.oracle.store import AnswerStore, decode, encode


def key(n: object) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def row(n: int) -> dict[str, Any]:
    return {"key": key(n), "answer": f"answer {n} \u2192 \n\t\x00"}


def write(folder: Path, *numbers: int) -> Path:
    """Answers in a segment of their own."""
    before = set(folder.glob("*.jsonl"))
    store = AnswerStore(folder)
    store.write([row(n) for n in numbers])
    store.close()
    (segment,) = set(folder.glob("*.jsonl")) - before
    return segment


def found(folder: Path, *numbers: int) -> list[bool]:
    store = AnswerStore(folder)
    answers = [store.get(key(n)) for n in numbers]
    assert all(answer is None or answer == row(n) for n, answer in zip(numbers, answers, strict=True))
    store.close()
    return [answer is not None for answer in answers]


def test_answers_are_found_across_segments_and_by_those_already_open(tmp_path: Path) -> None:
    early = AnswerStore(tmp_path, refresh_s=0.0)
    write(tmp_path, 1, 2)
    write(tmp_path, 3)
    assert early.get(key(3)) == row(3)
    assert found(tmp_path, 1, 2, 3, 4) == [True, True, True, False]
    early.close()


def test_a_segment_is_json_lines(tmp_path: Path) -> None:
    segment = write(tmp_path, 1, 2)
    assert [json.loads(line)["answer"] for line in segment.read_text().splitlines()] == [row(1)["answer"], row(2)["answer"]]


@pytest.mark.parametrize("index", [True, False])
def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path, index: bool) -> None:
    segment = write(tmp_path, 1, 2)
    if not index:
        segment.with_suffix(".idx").unlink()
    with segment.open("ab") as file:
        file.write(encode(row(3))[:-7])
    assert found(tmp_path, 1, 2, 3) == [True, True, False]
    write(tmp_path, 3)
    assert found(tmp_path, 1, 2, 3) == [True, True, True]


def test_a_torn_line_is_read_once_its_rest_has_come(tmp_path: Path) -> None:
    segment = write(tmp_path, 1)
    late = encode(row(2))
    with segment.open("ab") as file:
        file.write(late[:20])
    reader = AnswerStore(tmp_path, refresh_s=0.0)
    assert reader.get(key(2)) is None
    with segment.open("ab") as file:
        file.write(late[20:])
    assert reader.get(key(2)) == row(2)
    reader.close()


def test_a_damaged_line_is_never_given_out(tmp_path: Path) -> None:
    segment = write(tmp_path, 1, 2, 3)
    data = bytearray(segment.read_bytes())
    data[data.index(b"answer 2")] ^= 1
    segment.write_bytes(data)
    assert found(tmp_path, 1, 2, 3) == [True, False, True]
    segment.with_suffix(".idx").unlink()
    assert found(tmp_path, 1, 2, 3) == [True, False, True]


@pytest.mark.parametrize("junk", [b"", b"x" * 19, np.full(60, 255, np.uint8).tobytes(), np.zeros(60, np.uint8).tobytes()])
def test_a_wrong_index_file_is_not_trusted(tmp_path: Path, junk: bytes) -> None:
    write(tmp_path, 1, 2, 3).with_suffix(".idx").write_bytes(junk)
    assert found(tmp_path, 1, 2, 3) == [True, True, True]


def test_an_index_file_that_leads_astray_is_noticed(tmp_path: Path) -> None:
    first, second = write(tmp_path, 1, 2), write(tmp_path, 8, 9)
    first.with_suffix(".idx").write_bytes(second.with_suffix(".idx").read_bytes())
    assert found(tmp_path, 1, 2, 8, 9) == [True, True, True, True]


def test_a_full_disk_is_an_error_and_leaves_the_segment_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AnswerStore(tmp_path)
    store.write([row(1)])

    def full(handle: int, data: Any) -> int:
        os.pwrite(handle, bytes(data)[:9], 10**6)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="No space left"):
        patch.setattr(module, "_write_all", full)
        store.write([row(2)])
    store.write([row(3)])
    store.close()
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    assert found(tmp_path, 1, 2, 3) == [True, False, True]


def test_processes_write_side_by_side(tmp_path: Path) -> None:
    script = (
        "import sys, hashlib; from pathlib import Path; from qup.oracle.store import AnswerStore\n"
        "s = AnswerStore(Path(sys.argv[1]))\n"
        "for n in range(int(sys.argv[2]), int(sys.argv[2]) + 50):\n"
        "    s.write([{'key': hashlib.sha256(str(n).encode()).hexdigest(), 'answer': f'answer {n} \\u2192 \\n\\t\\x00'}])\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(first)]) for first in (0, 50, 100)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert all(found(tmp_path, *range(150)))


def test_a_line_survives_encoding() -> None:
    line = encode(row(1))
    assert decode(line) == row(1)
    assert line.count(b"\n") == 1
    assert decode(line[:-1] + b" \n") is None
    assert decode(b"\n") is None and decode(b"{}\n") is None


def test_an_index_of_a_million_answers_stays_small() -> None:
    entries = np.zeros(1_000_000, ENTRY)
    entries["key"] = np.random.default_rng(0).integers(0, 2**63, len(entries), dtype=np.uint64)
    entries["offset"] = np.arange(len(entries))
    tracemalloc.start()
    index = OffsetIndex()
    for part in np.split(entries, 10):
        index.extend(part)
    for n in range(1000):
        index.add(n, 1, n, 1)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 30e6
    for n in (0, 77, 999_999):
        assert (0, n, 0) in list(index.find(int(entries["key"][n])))
    assert list(index.find(5)) == [(1, 5, 1)]
