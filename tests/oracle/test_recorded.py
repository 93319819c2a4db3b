"""Answers from a file in place of an endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qup.config.schema import Oracle
from qup.errors import InputError
from qup.oracle import open_oracle
from tests.oracle.fakes import FakeBackend, asks, echo, opened


def recorded(path: Path, folder: Path, *names: object, attempt: int = 0) -> list[str]:
    content = str(path.stat().st_mtime_ns) if path.exists() else ""
    with open_oracle(Oracle(backend="recorded", path=str(path), content=content, seed=3), folder) as client:
        return [answer.text for _, answer in client.ask(asks(*names, attempt=attempt))]


def lines(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_answer_store_is_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, opened(patch, FakeBackend(echo), tmp_path / "live", model="gpt") as client:
        list(client.ask([*asks(1, 2), *asks(2, attempt=1)]))
    path = tmp_path / "live" / "oracle" / "answers"
    assert sorted(recorded(path, tmp_path / "later", 1, 2)) == ["to q1", "to q2"]
    assert recorded(path, tmp_path / "later", 2, attempt=1) == ["to q2"]
    with pytest.raises(InputError, match="attempt 1"):
        recorded(path, tmp_path / "later", 1, attempt=1)


def test_lines_by_messages_by_hand(tmp_path: Path) -> None:
    (one,) = asks(1)
    path = lines(
        tmp_path / "r.jsonl",
        {"messages": one.messages, "answer": "any attempt"},
        {"messages": one.messages, "attempt": 1, "answer": "the second"},
    )
    assert [recorded(path, tmp_path, 1, attempt=attempt) for attempt in (0, 1, 2)] == [["any attempt"], ["the second"], ["any attempt"]]


def test_a_missing_answer_names_the_request_and_the_line_to_add(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", {"messages": [], "answer": "x"})
    with pytest.raises(InputError, match=r"task 'refine', id 'id-7', attempt 0, key [0-9a-f]{64}") as caught:
        recorded(path, tmp_path, 7)
    row = str(caught.value)[str(caught.value).index("{") :]
    lines(path, json.loads(row) | {"answer": "mine"})
    assert recorded(path, tmp_path, 7) == ["mine"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"messages": [], "answer": "x"}\nnonsense\n', "row 2"),
        ('{"messages": [], "answer": 3}\n', "row 1"),
        ('{"answer": "x"}\n', "row 1"),
        ("", "no recorded answer"),
        (None, r"oracle\.path="),
    ],
)
def test_a_file_that_is_no_recording(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "r.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=says):
        recorded(path, tmp_path, 1)


def test_a_recording_being_written_is_read_to_its_last_whole_line(tmp_path: Path, behaving: Callable[..., str]) -> None:
    path = lines(tmp_path / "r.jsonl", {"messages": next(asks(1)).messages, "answer": "x"})
    with path.open("a") as file:
        file.write('{"messages": [')
    assert recorded(path, tmp_path, 1) == ["x"]


def test_a_recording_costs_nothing_and_is_not_copied(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", {"messages": next(asks(1)).messages, "answer": "x", "input_tokens": 5, "output_tokens": 7})
    oracle = Oracle(backend="recorded", path=str(path), usd_per_million_input=1e6)
    with open_oracle(oracle, tmp_path, max_usd=0.5) as client:
        ((_, answer),) = client.ask(asks(1))
    assert (answer.usd, answer.input_tokens, answer.output_tokens) == (0.0, 5, 7)
    assert not (tmp_path / "oracle" / "answers").exists()
