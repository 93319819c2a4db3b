"""Anyone's traces by problem: the files of source=file, each trace with the teacher who wrote it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from qup.config.paths import is_commit, local
from qup.config.schema import Source
from qup.data.decontamination import folded
from qup.data.formats import SUFFIXES, read_local
from qup.errors import Fault, InputError

PATTERN = re.compile(r"[*?\[]")
_LISTED = 10
"""Rows that a message lists."""
_PART = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class GivenTraces:
    """Traces in the files' order. `names` are problem ids, or with source.question normalised problem texts."""

    names: list[str]
    texts: list[str]
    teachers: list[str]

    @property
    def who(self) -> list[str]:
        """Every teacher once, in order of first trace."""
        return list(dict.fromkeys(self.teachers))


def trace_files(source: Source) -> list[Path]:
    """The files that `source.path` and `source.files` name, patterns and folders spelt out, each once, in order.

    Raises InputError where one is not there or a pattern fits nothing. A hub name becomes the files of its snapshot.
    """
    found: dict[Path, None] = {}
    for text in [source.path, *source.files]:
        if not text:
            continue
        if PATTERN.search(text) and not Path(text).expanduser().exists():
            parts = Path(text).expanduser().parts
            fixed = next(i for i, part in enumerate(parts) if PATTERN.search(part))
            there = sorted(file for file in Path(*parts[:fixed]).glob(str(Path(*parts[fixed:]))) if file.suffix in SUFFIXES)
            if not there:
                raise InputError(f"{text}: no file that ends in {', '.join(SUFFIXES)} fits this pattern")
        else:
            path = local(text)
            there = _below(_snapshot(text, source)) if path is None else _below(path)
        found.update(dict.fromkeys(there))
    return list(found)


def is_hub(source: Source) -> bool:
    """Whether the traces are a data set on the hub, which cannot be looked into before it is downloaded."""
    return bool(source.path) and not PATTERN.search(source.path) and local(source.path) is None


def _below(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix in (".jsonl", ".parquet") and not file.name.startswith("."))
    if not found:
        raise InputError(f"{path}: the folder holds no .jsonl or .parquet file")
    return found


def _snapshot(name: str, source: Source) -> Path:
    from huggingface_hub import snapshot_download

    revision = source.content if is_commit(source.content) else source.revision
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=["*.jsonl", "*.parquet"]))
    except Exception as error:  # the library's errors share no base class
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"source.path={name}: can't be loaded from the hub: {type(error).__name__}: {reason}") from None


def teacher_of(file: Path) -> str:
    """The teacher that a file is named after."""
    return _PART.sub("", file.stem)


def read_traces(source: Source) -> GivenTraces:
    """All traces of `source`; raises InputError naming the file, and all columns, or all rows, at fault.

    The teacher is the column `source.teacher_column` where a file has one, else the file's name. Where teachers are told
    apart (a column, or several files), more than source.samples of one problem by one teacher are refused.
    """
    files = trace_files(source)
    key = source.question or source.id
    names: list[str] = []
    texts: list[str] = []
    teachers: list[str] = []
    told = len(files) > 1
    owner: dict[str, Path] = {}
    seen: dict[tuple[str, str], list[str]] = {}
    bad: list[str] = []
    for file in files:
        found = read_local(file, [key, source.text, source.teacher_column], split="train")
        bad += found.broken
        needed = ((key, "source.question" if source.question else "source.id"), (source.text, "source.text"))
        missing = [f"no column {column!r} ({setting})" for column, setting in needed if column not in found.columns]
        if found.values and missing:
            raise InputError(f"{file}: {' and '.join(missing)}; it has {', '.join(sorted(found.columns))}")
        named = source.teacher_column in found.columns
        told = told or named
        if not named:
            other = owner.setdefault(teacher_of(file), file)
            if other != file and _PART.sub("", str(other.with_suffix(""))) != _PART.sub("", str(file.with_suffix(""))):
                raise InputError(
                    f"{file}: {other} would be the same teacher, {teacher_of(file)!r}; name files differently or give a column"
                )
        for number, entry in zip(found.numbers, found.values, strict=True):
            identity, text = entry[key], entry[source.text]
            teacher = entry[source.teacher_column] if named else teacher_of(file)
            where = f"{file}, row {number}"
            if identity is None or not isinstance(text, str):
                bad.append(f"{where}: {key} and {source.text} have to be an id and a text, found {identity!r} and {type(text).__name__}")
                continue
            if not isinstance(teacher, str) or not teacher.strip():
                bad.append(f"{where}: {source.teacher_column} has to name a teacher, found {teacher!r}")
                continue
            name = folded(str(identity)) if source.question else str(identity)
            before = seen.setdefault((teacher, name), [])
            if told and len(before) >= source.samples:
                bad.append(
                    f"{where}: teacher {teacher!r} has a trace of {key}={identity!r} already, in {before[0]}; "
                    f"source.samples={source.samples} is the most that each may have of one problem"
                )
                continue
            before.append(where)
            names.append(name)
            texts.append(text.encode("utf-8", "replace").decode())
            teachers.append(teacher)
    if bad:
        more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise InputError("; ".join(bad[:_LISTED]) + more)
    return GivenTraces(names, texts, teachers)


def check_traces(source: Source, key: str) -> list[Fault]:
    """What is wrong with the files of source=file, without heavy imports; `key` is where `source` stands.

    Nothing is said of a hub name: its files are looked into once they are here.
    """
    if is_hub(source):
        return []
    try:
        found = read_traces(source)
    except InputError as error:
        return [Fault(f"{key}.path", source.path or ", ".join(source.files), str(error))]
    if not found.names:
        return [Fault(f"{key}.path", source.path, "the file holds no trace")]
    if source.teacher and source.teacher not in found.who:
        return [Fault(f"{key}.teacher", source.teacher, f"wrote none of the traces; the teachers are {', '.join(found.who)}")]
    return []


def check_choice(source: Source, key: str, value: object) -> list[Fault]:
    """A fault at `key` where a choice among the traces is asked for and no problem has two of them."""
    if is_hub(source):
        return []
    try:
        found = read_traces(source)
    except InputError:
        return []
    drawn = [(name, who) for name, who in zip(found.names, found.teachers, strict=True) if source.teacher in ("", who)]
    if len({name for name, _ in drawn}) < len(drawn):
        return []
    writers = sorted({who for _, who in drawn})
    of = f"one teacher, {writers[0]}, wrote them all" if len(writers) == 1 else f"{', '.join(writers)} wrote of different problems"
    return [Fault(key, value, f"can't matter: no problem has two traces in source=file, {of}; files of several teachers have")]


def check_ids(source: Source, key: str, problems: Sequence[tuple[str, str]]) -> tuple[list[Fault], str]:
    """Whether the traces belong to these problems (id, text): a fault where none does, else what to say of those that don't."""
    if is_hub(source):
        return [], ""
    try:
        given = read_traces(source).names
    except InputError:
        return [], ""
    known: Collection[str] = {folded(text) for _, text in problems} if source.question else {identity for identity, _ in problems}
    unknown = [identity for identity in given if identity not in known]
    if not unknown or not known:
        return [], ""
    column, setting = (source.question, "question") if source.question else (source.id, "id")
    if len(unknown) == len(given):
        example = f"none of its {len(given)} {setting}s (such as {given[0]!r} in column {column!r}) is a problem's {setting}, such as {min(known)!r}"
        return [Fault(f"{key}.path", source.path, f"{example}; see {key}.{setting} and problems.{setting}")], ""
    named = source.path or ", ".join(source.files)
    return [], f"{key}.path={named}: {len(unknown)} of {len(given)} traces belong to no problem (such as {setting} {unknown[0]!r})"
