"""The traces that a scorer reads: a stream, a pool's eligible candidates, or the kept native traces.

Scores are kept per trace. What a pool's scores hold already is gathered from there; only the rest is computed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.errors import InputError, Interrupted
from qup.pipeline.context import Context
from qup.store import Artifact, rows

KEYS = pa.schema([("pool", pa.string()), ("problem_id", pa.string()), ("candidate", pa.int32())])
HINT = "pool."
SHOWN = 5
"""Traces that a message names."""


@dataclass(frozen=True)
class TraceSet:
    """Traces in order. Axis N: a trace's position in the set."""

    artifact: Artifact
    table: str
    keys: pa.Table
    """Schema KEYS, N rows."""
    row_N: np.ndarray
    """Row number of each trace in the artifact's table."""
    questions: pa.Table | None
    """Problem ids and questions, where the table itself has no question."""

    def __len__(self) -> int:
        return self.keys.num_rows

    def take(self, index: np.ndarray) -> TraceSet:
        """Some of the traces, in ascending order."""
        return replace(self, keys=self.keys.take(pa.array(index)), row_N=self.row_N[index])

    def read(self, groups: Sequence[np.ndarray]) -> Iterator[pa.Table]:
        """For each array of positions (ascending, arrays in order) a table: KEYS, question, text."""
        columns = ["text"] if self.questions is not None else ["question", "text"]
        tables = rows.pieces(self.artifact, self.table, [self.row_N[group] for group in groups], columns)
        for group, table in zip(groups, tables, strict=True):
            keys = self.keys.take(pa.array(group))
            if self.questions is not None:
                stray = f"has {self.artifact.stage}, and is not among the problems"
                found = rows.owners(keys["problem_id"], self.questions["problem_id"], stray)
                table = table.append_column("question", self.questions["question"].take(pa.array(found)))
            yield pa.table({**{name: keys[name] for name in KEYS.names}, "question": table["question"], "text": table["text"]})


def open_traces(inputs: Mapping[str, Artifact]) -> TraceSet:
    """The traces among a scoring stage's inputs: `traces` (stream or candidates), else `solvable` and `rollouts`."""
    traces = inputs.get("traces")
    if traces is None:
        return _kept(inputs)
    if traces.has("stream.parquet"):
        keys = traces.table("stream", KEYS.names).cast(KEYS)
        return TraceSet(traces, "stream", keys, np.arange(keys.num_rows), None)
    table = traces.table("candidates", ["problem_id", "candidate", "eligible"])
    row_N = np.flatnonzero(np.asarray(table["eligible"]))
    keys = _keys(table["problem_id"], table["candidate"], row_N)
    return TraceSet(traces, "candidates", keys, row_N, _questions(inputs))


def _kept(inputs: Mapping[str, Artifact]) -> TraceSet:
    solvable = inputs["solvable"].table("solvable", ["problem_id", "kept"])
    rollouts = inputs["rollouts"].table("rollouts", ["problem_id", "sample"])
    owner = rows.positions(rollouts["problem_id"], solvable["problem_id"])
    kept = np.asarray(solvable["kept"])
    row_N = np.flatnonzero((owner >= 0) & (np.asarray(rollouts["sample"]) == kept[np.maximum(owner, 0)])) if len(kept) else np.zeros(0, int)
    keys = _keys(rollouts["problem_id"], rollouts["sample"], row_N)
    return TraceSet(inputs["rollouts"], "rollouts", keys, row_N, _questions(inputs))


def _keys(ids: pa.ChunkedArray, candidates: pa.ChunkedArray, row_N: np.ndarray) -> pa.Table:
    picked = pa.array(row_N)
    pool = pa.array([""] * len(row_N), pa.string())
    return pa.table({"pool": pool, "problem_id": ids.take(picked), "candidate": candidates.take(picked)}).cast(KEYS)


def _questions(inputs: Mapping[str, Artifact]) -> pa.Table:
    return inputs["problems"].table("problems", ["problem_id", "question"])


def key_rows(keys: pa.Table, scored: pa.Table, pool: str) -> np.ndarray:
    """Row in `scored` of every key of that pool; −1 for keys of other pools and where there is none."""
    found = np.full(keys.num_rows, -1, np.int64)
    mine = np.flatnonzero(np.asarray(pc.equal(keys["pool"], pool)))
    found[mine] = rows.match(keys.take(pa.array(mine)), scored)
    return found


def refuse_infinite(what: str, sound_N: np.ndarray, traces: pa.Table) -> None:
    """InputError that names traces whose numbers under the student are not finite."""
    if sound_N.all():
        return
    entries = traces.select(["problem_id", "candidate"]).take(pa.array(np.flatnonzero(~sound_N)[:SHOWN])).to_pylist()
    listed = ", ".join(f"problem {entry['problem_id']} candidate {entry['candidate']}" for entry in entries)
    raise InputError(
        f"{what} of {int((~sound_N).sum())} of {len(sound_N)} traces is no finite number ({listed}): the student's weights are broken, "
        "or too large for model.dtype"
    )


@dataclass(frozen=True)
class Plan:
    """What is to be computed and what is gathered; fixed for the whole stage by the first process that planned it."""

    traces: TraceSet
    todo: np.ndarray
    """Positions to be computed, ascending."""
    shard_size: int

    @property
    def shards(self) -> int:
        return -(-len(self.todo) // self.shard_size)

    def read(self, ctx: Context, indices: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
        """Those shards in order, each with its traces as `TraceSet.read` gives them; progress is told before each and after the last."""
        indices, size = sorted(indices), self.shard_size
        tables = self.traces.read([self.todo[index * size : (index + 1) * size] for index in indices])
        for index, table in zip(indices, tables, strict=True):
            ctx.check()
            ctx.progress(index * size, len(self.todo), "traces")
            yield index, table
            ctx.progress(index * size + table.num_rows, len(self.todo), "traces")


def make_plan(
    inputs: Mapping[str, Artifact],
    ctx: Context,
    scores: str,
    shard_size: int,
    wanted: Callable[[pa.ChunkedArray], np.ndarray] | None = None,
) -> Plan:
    """Plans a scoring stage; `scores` is the table that hints hold. A second call gives the first one's plan.

    `wanted` marks, by their problem ids, the traces that are scored at all.
    """
    traces = open_traces(inputs)
    if wanted is not None:
        traces = traces.take(np.flatnonzero(wanted(traces.keys["problem_id"])))
    there = np.zeros(len(traces), bool)
    for name, artifact in _hints(inputs).items():
        there |= key_rows(traces.keys, artifact.table(scores, ["problem_id", "candidate"]), name) >= 0
    planned = rows.create_once(ctx.work / "todo.parquet", pa.table({"position": pa.array(np.flatnonzero(~there))}))
    return Plan(traces, np.asarray(planned["position"]), shard_size)


def merged(plan: Plan, inputs: Mapping[str, Artifact], ctx: Context, names: Mapping[str, pa.Schema]) -> Iterator[dict[str, pa.Table]]:
    """The finished rows in the traces' order, piece by piece: shard by shard where nothing is gathered.

    `names` are the tables that make up a score, with their schemas; the hints' files bear those names, and
    a shard holds their columns side by side. Raises Interrupted (and forgets the plan) where a hint has vanished.
    """
    if len(plan.todo) == len(plan.traces):
        for index in range(plan.shards):
            shard = ctx.load_shard(index)
            yield {name: shard.select(schema.names).cast(schema) for name, schema in names.items()}
        return
    shards = [ctx.load_shard(index) for index in range(plan.shards)]
    order: list[np.ndarray] = [plan.todo]
    parts = {name: [shard.select(schema.names).cast(schema) for shard in shards] for name, schema in names.items()}
    missing = np.setdiff1d(np.arange(len(plan.traces)), plan.todo)
    keys = plan.traces.keys.take(pa.array(missing))
    for pool, artifact in _hints(inputs).items():
        found = key_rows(keys, artifact.table(next(iter(names)), ["problem_id", "candidate"]), pool)
        mine = np.flatnonzero(found >= 0)
        mine = mine[np.argsort(found[mine], kind="stable")]
        order.append(missing[mine])
        for name, schema in names.items():
            table = rows.take(artifact, name, found[mine], schema.names)
            parts[name].append(table.set_column(0, "pool", pa.array([pool] * len(mine), pa.string())).cast(schema))
    place = np.concatenate(order)
    if len(place) != len(plan.traces):
        forget(ctx)
        raise Interrupted("scores of a pool that were to be gathered are gone from the store; the next run computes them")
    back = pa.array(np.argsort(place, kind="stable"))
    yield {name: pa.concat_tables(tables).take(back) for name, tables in parts.items()}


def forget(ctx: Context) -> None:
    """Drops plan and shards, so that the next run starts anew."""
    shutil.rmtree(ctx.work / "shards", ignore_errors=True)
    (ctx.work / "todo.parquet").unlink(missing_ok=True)


def _hints(inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    return {name.removeprefix(HINT): artifact for name, artifact in inputs.items() if name.startswith(HINT)}
