"""Published artifacts and contexts for tests of single stages, without a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from qup.files import file_sha256
from qup.pipeline.context import Context
from qup.records import ROLLOUTS, VERDICTS
from qup.store import Artifact, save_table

CANDIDATE: dict[str, Any] = {
    "candidate": 0,
    "teacher": "t",
    "turns": [],
    "text": "t",
    "extracted": "1",
    "correct": True,
    "verdict": "equal",
    "eligible": True,
    "status": "ok",
    "attempts": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "edit_distance": float("nan"),
    "rules": [],
}
"""What a row of CANDIDATES holds where a test does not say."""


def publish(folder: Path, stage: str, metrics: dict[str, Any] | None = None) -> Artifact:
    """An artifact over the files that lie in `folder`."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    key = folder.name
    return Artifact(stage, key, folder, {"key": key, "digest": "", "files": files, "metrics": metrics or {}})


def artifact(root: Path, stage: str, name: str | None = None, **tables: pa.Table) -> Artifact:
    """An artifact of some tables, `name` telling two of one stage apart."""
    folder = root / f"{stage}-{name or 'a'}"
    folder.mkdir(parents=True)
    for table_name, table in tables.items():
        save_table(folder, table_name, table)
    return publish(folder, stage)


def rows(schema: pa.Schema, entries: list[dict[str, Any]], **defaults: Any) -> pa.Table:
    """A table of that schema from rows; what a row leaves out comes from the defaults."""
    full = [defaults | entry for entry in entries]
    return pa.table([pa.array([entry[field.name] for entry in full], field.type) for field in schema], schema=schema)


def judged(root: Path, entries: list[dict[str, Any]], **defaults: Any) -> dict[str, Artifact]:
    """Rollouts and their verdicts, of rows that have the columns of both."""
    return {
        "rollouts": artifact(root, "rollouts", rollouts=rows(ROLLOUTS, entries, **defaults)),
        "verdicts": artifact(root, "verdicts", verdicts=rows(VERDICTS, entries, **defaults)),
    }


def context(root: Path, name: str = "ctx", **settings: Any) -> Context:
    """A context with folders of its own."""
    folders = {part: root / name / part for part in ("out", "work")} | {"shared": root / "shared"}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return Context(**folders, **settings)


def run_sharded(module: Any, view: Any, inputs: dict[str, Artifact], ctx: Context, stage: str) -> Artifact:
    """Plans, computes and merges a sharded stage as a launcher does."""
    count = module.plan(view, inputs, ctx)
    todo = [index for index in range(count) if not ctx.has_shard(index)]
    if todo:
        module.shard(view, inputs, ctx, todo)
    metrics = module.merge(view, inputs, ctx)
    return publish(ctx.out, stage, metrics)
