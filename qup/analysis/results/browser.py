"""Traces to look at: the same problems in every stream, token by token, with surprise and edits."""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rapidfuzz.distance import Levenshtein

from qup.analysis.results.arms import Run
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import Streams
from qup.draws import bits
from qup.errors import CorruptArtifact
from qup.store import Artifact, rows

PROBLEMS, ARMS, TOKENS = 12, 8, 1200
"""Most problems a student, streams a student and tokens a trace."""
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_FAR = 24
"""Characters within which a token that does not fit is looked for further on."""

Json = dict[str, Any]


def browse(runs: Sequence[Run], streams: Streams, shelf: Shelf, baseline: str) -> list[Json]:
    """For each student: problems drawn by a fixed seed, and each stream's trace of them. JSON-able."""
    made = []
    for student in dict.fromkeys(run.student for run in runs):
        mine = [run for run in runs if run.student == student]
        mine.sort(key=lambda run: (run.arm.label != baseline, run.arm.selects))
        shown = _student(mine[:ARMS], streams, shelf, baseline)
        if shown["problems"]:
            made.append({"student": student, **shown, "left_out": [run.arm.label for run in mine[ARMS:]]})
    return made


def _student(runs: Sequence[Run], streams: Streams, shelf: Shelf, baseline: str) -> Json:
    tables = {run.arm.label: found for run in runs if (found := _texts(run, shelf)) is not None}
    if not tables:
        return {"problems": [], "arms": []}
    common = set.intersection(*[set(table["problem_id"].to_pylist()) for table in tables.values()])
    drawn = sorted(common, key=lambda problem: bits(0, "browser", problem))[:PROBLEMS]
    traces: dict[str, dict[str, Json]] = {}
    questions: dict[str, str] = {}
    natives: dict[str, str] = {}
    for run in runs:
        if run.arm.label in tables:
            traces[run.arm.label], asked = _traces(run, drawn, streams, shelf)
            questions |= asked
            if run.arm.label == baseline:
                natives = {problem: trace["text"] for problem, trace in traces[run.arm.label].items()}
    problems = []
    for problem in drawn:
        shown = []
        for label, by_problem in traces.items():
            trace = by_problem.get(problem)
            if trace is not None:
                shown.append({"arm": label, **_marked(trace, natives.get(problem) if label != baseline else None)})
        problems.append({"id": problem, "question": questions.get(problem, ""), "traces": shown})
    return {"problems": problems, "arms": list(traces), "baseline": baseline if natives else ""}


def _texts(run: Run, shelf: Shelf) -> pa.Table | None:
    artifact = shelf.of(run.cell, "stream")
    return None if artifact is None else shelf.table(artifact, "stream", ("problem_id",))


def _traces(run: Run, drawn: Sequence[str], streams: Streams, shelf: Shelf) -> tuple[dict[str, Json], dict[str, str]]:
    """Text, tokens and scores of the drawn problems in one stream."""
    artifact = shelf.of(run.cell, "stream")
    assert artifact is not None
    wanted = pa.array(drawn)
    told = ("teacher", "turns") if {"teacher", "turns"} <= set(pq.read_schema(artifact.file("stream.parquet")).names) else ()
    table = _taken(artifact, "stream", wanted, ("problem_id", "question", "text", "correct", "status", *told), shelf)
    if table is None:
        return {}, {}
    made = {
        row["problem_id"]: {**{name: row[name] for name in ("text", "correct", "status", *told)}, "rewards": {}, "tokens": None}
        for row in table.to_pylist()
    }
    questions = {row["problem_id"]: row["question"] for row in table.to_pylist()}
    scores = streams.of(run.cell)
    if scores is not None and scores.problem_ids is not None:
        for place, problem in zip(rows.positions(wanted, scores.problem_ids), drawn, strict=True):
            if place >= 0 and problem in made:
                found = {name: float(values[place]) for name, values in scores.reward_P.items()}
                made[problem]["rewards"] = {name: _rounded(score, 3) for name, score in found.items()}
    _add_tokens(run, wanted, made, shelf)
    return made, questions


def _add_tokens(run: Run, wanted: pa.Array, made: dict[str, Json], shelf: Shelf) -> None:
    artifact = shelf.of(run.cell, "perplexity")
    if artifact is None or not artifact.has("tokens.parquet"):
        return
    named = shelf.table(artifact, "tokens", ("token_id", "token"))
    table = _taken(artifact, "traces", wanted, ("problem_id", "token_ids", "nll_T"), shelf)
    if named is None or table is None:
        return
    names = dict(zip(named["token_id"].to_pylist(), named["token"].to_pylist(), strict=True))
    for row in table.to_pylist():
        trace = made.get(row["problem_id"])
        if trace is None:
            continue
        ids, nll = row["token_ids"][:-1], row["nll_T"][:-1]
        pieces = split_like(trace["text"], [names.get(token, "\ufffd") for token in ids])
        trace["tokens"] = [[piece, _rounded(one, 2)] for piece, one in zip(pieces, nll, strict=True)]
        trace["ppl"] = _rounded(math.exp(min(float(np.mean(nll)), 700.0)), 2) if nll else None


def _rounded(value: float | None, digits: int) -> float | None:
    """None for what is no finite number: JSON has none."""
    return round(float(value), digits) if value is not None and math.isfinite(value) else None


def _taken(artifact: Artifact, name: str, wanted: pa.Array, columns: Sequence[str], shelf: Shelf) -> pa.Table | None:
    try:
        ids = artifact.table(name, ["problem_id"])["problem_id"]
        found = rows.positions(wanted, ids)
        return rows.take(artifact, name, np.unique(found[found >= 0]), columns)
    except (CorruptArtifact, OSError, ValueError, KeyError, IndexError) as error:
        shelf.corrupt[f"{artifact.stage}/{artifact.key}"] = str(error)
        return None


def split_like(text: str, tokens: Sequence[str]) -> list[str]:
    """The text cut into one piece a token; the pieces join to the text.

    `tokens` are decoded one by one, so spaces may be missing from them and bytes of one character may be apart (shown as
    U+FFFD): such tokens share a piece, and the others of the group are empty.
    """
    pieces: list[str] = []
    place, waiting = 0, 0
    for token in tokens:
        start = _find(text, token, place)
        if start < 0:
            waiting += 1
            continue
        before = text[place:start]
        if waiting:
            pieces += [before] + [""] * (waiting - 1)
            before = ""
        pieces.append(before + token)
        place, waiting = start + len(token), 0
    if waiting:
        pieces += [text[place:]] + [""] * (waiting - 1)
    elif pieces:
        pieces[-1] += text[place:]
    return pieces


def _find(text: str, token: str, place: int) -> int:
    if not token or "\ufffd" in token:
        return -1
    return text.find(token, place, place + _FAR + len(token))


def _marked(trace: Json, native: str | None) -> Json:
    """The trace as the page shows it: [piece, NLL, edited] a token, with the writer where two wrote in turn, and what was taken out before which token."""
    text = trace["text"]
    tokens = trace["tokens"] if trace["tokens"] is not None else [[word, None] for word in _WORDS.findall(text)]
    added, removed = edits(native, text) if native is not None else ([], [])
    turns = trace.get("turns") or []
    shown, gone = [], []
    place = 0
    queue = list(removed)
    for index, (piece, nll) in enumerate(tokens[:TOKENS]):
        while queue and queue[0][0] <= place:
            gone.append([index, queue.pop(0)[1]])
        stop = place + len(piece)
        edited = any(low < stop and place < high for low, high in added) and bool(piece.strip())
        shown.append([piece, nll, int(edited), *([writer_at(turns, place)] if turns else [])])
        place = stop
    gone += [[len(shown), words] for _, words in queue] if len(tokens) <= TOKENS else []
    kept: Json = {name: trace[name] for name in ("correct", "status", "teacher", "rewards", "ppl") if name in trace}
    return {**kept, "tokens": shown, "removed": gone, "cut": max(0, len(tokens) - TOKENS)}


def writer_at(turns: Sequence[int], place: int) -> int:
    """Who wrote the character at `place` of a trace whose spans end at `turns`: 0 the student, 1 the Oracle."""
    return bisect.bisect_right(turns, place) % 2


def edits(before: str, after: str) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
    """Word by word: ranges of `after` that are new, and (place in `after`, words of `before`) that are gone."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    ends = np.cumsum([0, *[len(word) for word in new]]).tolist()
    added, removed = [], []
    for edit in Levenshtein.opcodes(old, new):
        start = ends[edit.dest_start]
        if edit.tag in ("replace", "insert"):
            added.append((start, ends[edit.dest_end]))
        if edit.tag in ("replace", "delete") and (gone := "".join(old[edit.src_start : edit.src_end])).strip():
            removed.append((start, gone))
    return added, removed
