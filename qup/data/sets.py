"""Training problems and benchmarks: one loader for local files, the hub and the lab's generator.

A problem's id is its `id` column, else its row number counted from 0. A gold answer is read by `answers.gold`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qup.answers.extraction import HALF_PAIR
from qup.answers.golds import gold
from qup.config.paths import is_commit, local
from qup.config.schema import Benchmark, Problems
from qup.data.formats import Rows, read_hub, read_local
from qup.errors import Fault, InputError

if TYPE_CHECKING:
    import pyarrow as pa

_LISTED = 10
"""Rows that a message lists."""


@dataclass
class _Reading:
    """What came of a data set's rows: problems, rows without gold answer, and faults by column."""

    columns: frozenset[str]
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    no_gold: list[str] = field(default_factory=list)
    bad_questions: list[str] = field(default_factory=list)
    bad_ids: list[str] = field(default_factory=list)
    bad_solutions: list[str] = field(default_factory=list)


def load_problems(problems: Problems) -> tuple[pa.Table, dict[str, int]]:
    """The training problems (records.PROBLEMS) and counts: n_loaded, excluded_no_gold.

    Raises InputError with every fault of the file.
    """
    reading = _load(problems, "problems")
    counts = {"n_loaded": len(reading.rows) + len(reading.no_gold), "excluded_no_gold": len(reading.no_gold)}
    return _table(reading), counts


def load_benchmark(name: str, benchmark: Benchmark, key: str = "evaluation.benchmarks") -> pa.Table:
    """A benchmark's problems (records.PROBLEMS, solutions ""); raises InputError with every fault of the file.

    `key` is where the benchmark stands in the configuration, for messages.
    """
    return _table(_load(benchmark, f"{key}.{name}"))


def questions(data: Problems | Benchmark) -> list[tuple[str, str]]:
    """Ids and questions of a local file's or the generator's problems; none of a hub name, and of a file that can't be read."""
    if data.lab is None and (not data.path or local(data.path) is None):
        return []
    try:
        return [(row[0], row[1]) for row in _read(data)[1].rows]
    except InputError:
        return []


def check_file(data: Problems | Benchmark, key: str) -> list[Fault]:
    """What is wrong with the content of a local file or a generator's settings; nothing is said of a hub name.

    Reads the whole file, without heavy imports; `key` is where `data` stands in the configuration.
    """
    if data.lab is None and (not data.path or local(data.path) is None):
        return []
    if data.lab is not None:
        from qup.lab.world import plentiful

        if plentiful(data.lab):
            return []
    try:
        return _faults(data, key, *_read(data))
    except InputError as error:
        return [Fault(f"{key}.{'lab' if data.lab else 'path'}", data.path or "lab", str(error))]


def _load(data: Problems | Benchmark, key: str) -> _Reading:
    try:
        rows, reading = _read(data)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None
    if faults := _faults(data, key, rows, reading):
        raise InputError("\n".join(str(fault) for fault in faults))
    return reading


def _read(data: Problems | Benchmark) -> tuple[Rows, _Reading]:
    rows = _lab(data) if data.lab else _rows(data)
    reading = _Reading(frozenset(rows.columns))
    seen: dict[str, int] = {}
    for index, (number, row) in enumerate(zip(rows.numbers, rows.values, strict=True)):
        _take(data, index, number, row, seen, reading)
    return rows, reading


def _rows(data: Problems | Benchmark) -> Rows:
    solution = data.solution if isinstance(data, Problems) else None
    wanted = list(dict.fromkeys(name for name in (data.question, data.answer, data.id, solution) if name))
    path = local(data.path)
    if path is not None:
        return read_local(path, wanted, split=data.split, subset=data.subset, limit=data.limit)
    revision = data.content if is_commit(data.content) else data.revision
    return read_hub(data.path, wanted, subset=data.subset, split=data.split, revision=revision, limit=data.limit)


def _lab(data: Problems | Benchmark) -> Rows:
    from qup.lab.world import problems as lab_problems

    assert data.lab is not None
    solution = data.solution if isinstance(data, Problems) and data.solution else "solution"
    names = {"problem_id": "problem_id", "question": data.question, "answer": data.answer, "solution": solution}
    made = [{names[name]: value for name, value in row.items()} for row in lab_problems(data.lab)[: data.limit]]
    return Rows(tuple(names.values()), list(range(1, len(made) + 1)), made)


def _take(data: Problems | Benchmark, index: int, number: int, row: dict[str, Any], seen: dict[str, int], reading: _Reading) -> None:
    """One row into the reading; of a column that isn't there, nothing is said of each row."""
    question = row.get(data.question)
    if data.question in reading.columns and (why := _unfit(question)):
        reading.bad_questions.append(f"row {number} ({why})")
    column = "problem_id" if data.lab else data.id
    named = row.get(column) if column else index
    problem_id = str(named)
    if not column or column in reading.columns:
        if named is None or isinstance(named, list | dict) or _unfit(problem_id):
            reading.bad_ids.append(f"row {number} ({named!r})")
        elif problem_id in seen:
            reading.bad_ids.append(f"row {number} ({problem_id!r}, as row {seen[problem_id]})")
        seen.setdefault(problem_id, number)
    solution = _solution(data, number, row, reading)
    if data.answer not in reading.columns:
        return
    try:
        answer = gold(row[data.answer], data.gold)
    except InputError as error:
        reading.no_gold.append(f"row {number} ({error})")
        return
    if isinstance(data, Problems) and data.solution is None and data.solution_template:
        solution = data.solution_template.replace("{answer}", answer)
    reading.rows.append((problem_id, str(question), answer, solution))


def _solution(data: Problems | Benchmark, number: int, row: dict[str, Any], reading: _Reading) -> str:
    if not isinstance(data, Problems):
        return ""
    column = data.solution or ("solution" if data.lab else None)
    solution = (row.get(column) if column else None) or ""
    if solution and (why := _unfit(solution)):
        reading.bad_solutions.append(f"row {number} ({why})")
    return str(solution)


def _unfit(text: object) -> str:
    if not isinstance(text, str):
        return "empty" if text is None else f"not a text but {type(text).__name__}"
    if not text.strip():
        return "empty"
    return "half a surrogate pair" if HALF_PAIR.search(text) else ""


def _faults(data: Problems | Benchmark, key: str, rows: Rows, reading: _Reading) -> list[Fault]:
    where = data.path or "lab"
    if not rows.values and not rows.broken:
        return [Fault(f"{key}.path", where, "the file holds no rows")]
    faults = [Fault(f"{key}.path", where, told) for told in rows.broken]
    if not rows.values:
        return faults
    columns = {name: getattr(data, name) for name in ("question", "answer", "id")}
    if isinstance(data, Problems):
        columns["solution"] = data.solution
    for name, column in columns.items():
        if column and column not in rows.columns and not data.lab:
            hint = ", or none with problems.solution=null" if name == "solution" else ""
            faults.append(Fault(f"{key}.{name}", column, f"no such column in {where}; choose of {', '.join(rows.columns)}{hint}"))
    n = len(rows.values)
    exclude = isinstance(data, Problems) and data.missing_gold == "exclude"
    if reading.no_gold and not exclude:
        hint = f"; {key}.missing_gold=exclude leaves them out" if isinstance(data, Problems) else ""
        faults.append(Fault(f"{key}.answer", data.answer, f"no gold answer by gold={data.gold} in {_some(reading.no_gold, n)}{hint}"))
    if reading.no_gold and not reading.rows and exclude:
        faults.append(Fault(f"{key}.gold", data.gold, f"no gold answer in any row of {where}: {_some(reading.no_gold, n)}"))
    if reading.bad_questions:
        faults.append(Fault(f"{key}.question", data.question, f"no question in {_some(reading.bad_questions, n)}"))
    if reading.bad_ids:
        faults.append(Fault(f"{key}.id", data.id, f"ids must be there and differ; {_some(reading.bad_ids, n)}"))
    if reading.bad_solutions:
        faults.append(Fault(f"{key}.solution", columns["solution"], f"not a text in {_some(reading.bad_solutions, n)}"))
    return faults


def _some(rows: Sequence[str], n: int) -> str:
    more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
    return f"{len(rows)} of {n} rows: {', '.join(rows[:_LISTED])}{more}"


def _table(reading: _Reading) -> pa.Table:
    import pyarrow as pa

    from qup.records import PROBLEMS

    columns = zip(*reading.rows, strict=True) if reading.rows else ([], [], [], [])
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=PROBLEMS)
