"""The traces to be learnt: which of the pools' verified candidates of each aligned problem enter the stream."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.candidates.problems import kept_rollouts
from qup.candidates.scores import read_scores
from qup.candidates.table import STUDENT
from qup.config.views import StreamView
from qup.errors import InputError
from qup.measures.lark import weights as tempered
from qup.pipeline.context import Context
from qup.records import STREAM
from qup.selection import Groups, select, within_correlation
from qup.store import Artifact, rows, save_table

Inputs = Mapping[str, Artifact]
NATIVE = "native"
"""Pool and status of a native trace that stands in where an arm has no verified candidate."""
OWN = ("problem_id", "candidate", "teacher", "text", "correct", "turns")
"""What a row of the stream has from its candidate."""
SHOWN = 10
"""Problems named in a refusal."""


@dataclass(frozen=True)
class Candidates:
    """Candidates of the aligned problems, sorted by problem, pool (in the view's order) and candidate. Axis N."""

    problem_N: np.ndarray
    pool_N: np.ndarray
    candidate_N: np.ndarray
    row_N: np.ndarray
    """Row in the pool's table."""

    def __len__(self) -> int:
        return len(self.problem_N)

    @property
    def names(self) -> tuple[list[int], list[int]]:
        """Pool and candidate number of each row."""
        return self.pool_N.tolist(), self.candidate_N.tolist()

    def take(self, index: np.ndarray) -> Candidates:
        return Candidates(self.problem_N[index], self.pool_N[index], self.candidate_N[index], self.row_N[index])


def run(view: StreamView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `stream`, problem by problem in the aligned order, of each up to selection.keep rows, best first; returns its figures.

    Raises InputError where a problem has no trace and none may stand in, where scores are missing or NaN, and where
    a selection other than random has nothing to choose from.
    """
    ids = inputs["aligned"].table("aligned", ["problem_id"])["problem_id"]
    eligible, flagged = _candidates(view, inputs, ids)
    groups = Groups.of(eligible.problem_N)
    owner_G = eligible.problem_N[groups.start_P]
    names = ids.take(pa.array(owner_G)).to_pylist()
    _refuse_pointless(view, groups)
    scores = read_scores(view, inputs, ids, eligible)
    seed = view.selection.seed or 0
    keep = view.selection.keep
    randomly = select("random", groups, names, seed, keep=keep)
    chosen = select(view.selection.name, groups, names, seed, **scores, weight=view.selection.weight, keep=keep)
    ctx.check()
    lacking = np.setdiff1d(np.arange(len(ids)), owner_G)
    standing, native = _stand_ins(view, inputs, ids, lacking, flagged)
    picked = _joined([eligible.take(chosen), standing])
    back = np.argsort(picked.problem_N, kind="stable")
    # the random rule's choice stands beside the rule's own, rank by rank; a stand-in has none
    beside = [f"{view.pools[pool]}/{candidate}" for pool, candidate in zip(*eligible.take(randomly).names, strict=True)]
    beside += [""] * len(standing)
    weights = np.r_[_weights(view, groups, chosen, scores.get("cost_N")), np.ones(len(standing))]
    table = _rows(view, inputs, ids, picked.take(back), native)
    table = _annotated(inputs, ids, table, [beside[i] for i in back], owner_G, groups.count_P, weights[back])
    save_table(ctx.out, "stream", table)
    differs = _differ(groups, chosen, randomly)
    reward, cost = scores.get("reward_N"), scores.get("cost_N")
    status = pc.value_counts(table["status"]).to_pylist()
    return {
        "n": len(ids),
        "n_traces": table.num_rows,
        "traces_of_n": np.bincount(np.bincount(picked.problem_N, minlength=len(ids))).tolist(),
        "keep": keep,
        "selection": view.selection.name,
        "measure": None if view.measure is None else view.measure.kind,
        "weight": view.selection.weight if view.selection.name == "joint" else None,
        "pool_size": float(len(eligible) / len(ids)),
        "share_multi": float((groups.count_P >= 2).sum() / len(ids)),
        "share_not_random": differs / len(ids),
        "n_correct_stream": int(pc.sum(table["correct"]).as_py() or 0),
        "n_flagged": int(sum(entry["counts"] for entry in status if entry["values"] == "flagged")),
        "n_native": int(sum(entry["counts"] for entry in status if entry["values"] == NATIVE)),
        "n_unscored": int(sum(np.isnan(value).sum() for name, value in scores.items() if name != "chars_N")),
        "mean_chars": float(pc.mean(pc.utf8_length(table["text"])).as_py()),
        "from_pool": _counts(table["pool"]),
        "teachers": _counts(table["teacher"]),
        "within_correlation": None if reward is None or cost is None else within_correlation(groups, reward, cost),
        "traces_digest": _digest(table),
    }


def _candidates(view: StreamView, inputs: Inputs, ids: pa.ChunkedArray) -> tuple[Candidates, Candidates]:
    """Eligible candidates, and (for keep_flagged) the others that have a text."""
    eligible: list[Candidates] = []
    flagged: list[Candidates] = []
    for number, pool in enumerate(view.pools):
        table = inputs[f"pool.{pool}"].table("candidates", ["problem_id", "candidate", "eligible", "verdict", "teacher"])
        asked = np.asarray(pc.equal(table["teacher"], view.teacher)) if view.teacher else np.ones(table.num_rows, bool)
        owner = rows.positions(table["problem_id"], ids)
        candidate, good = np.asarray(table["candidate"]), np.asarray(table["eligible"])
        wordless = np.asarray(pc.is_in(table["verdict"], pa.array(["empty", "error", "refused", "echo"])))
        for found, marked in ((eligible, good), (flagged, ~good & ~wordless)):
            row = np.flatnonzero((owner >= 0) & marked & asked)
            found.append(Candidates(owner[row], np.full(len(row), number), candidate[row], row))
    return _sorted(eligible), _sorted(flagged)


def _sorted(parts: list[Candidates]) -> Candidates:
    whole = _joined(parts)
    return whole.take(np.lexsort((whole.candidate_N, whole.pool_N, whole.problem_N)))


def _joined(parts: list[Candidates]) -> Candidates:
    fields = ("problem_N", "pool_N", "candidate_N", "row_N")
    return Candidates(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def _differ(groups: Groups, chosen: np.ndarray, randomly: np.ndarray) -> float:
    """Problems of which other candidates were chosen than the random rule takes, in whatever order."""
    odd = np.setxor1d(chosen, randomly)
    return float(len(np.unique(groups.problem_N[odd])))


def _weights(view: StreamView, groups: Groups, chosen: np.ndarray, cost_N: np.ndarray | None) -> np.ndarray:
    """Of each chosen row: 1, or with LARK's tempering the problem's come to 1."""
    if view.selection.weights == "uniform" or cost_N is None:
        return np.ones(len(chosen))
    made = np.ones(len(chosen))
    owner = groups.problem_N[chosen]
    first, last = np.searchsorted(owner, np.arange(len(groups))), np.searchsorted(owner, np.arange(len(groups)), side="right")
    for p, (lo, hi) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        own = groups.start_P[p] + np.arange(groups.count_P[p])
        # the chosen stand first, so that of equal ones those have the weight
        ordered = np.r_[chosen[lo:hi], np.setdiff1d(own, chosen[lo:hi])]
        made[lo:hi] = tempered(-cost_N[ordered], hi - lo)[: hi - lo]
    return made


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def _refuse_pointless(view: StreamView, groups: Groups) -> None:
    if view.selection.name != "random" and not (groups.count_P > 1).any():
        raise InputError(
            f"selection={view.selection.name} cannot matter: in the pool {'+'.join(view.pools)} every problem has one candidate; "
            "use selection=random, or a pool with several (source=student, source.samples, refinement.input=all, source=student+oracle)"
        )


def _stand_ins(
    view: StreamView, inputs: Inputs, ids: pa.ChunkedArray, lacking: np.ndarray, flagged: Candidates
) -> tuple[Candidates, pa.Table | None]:
    """What stands in for problems without a verified candidate: flagged candidates, else native traces (pool −1)."""
    policy = view.alignment.on_failure
    if not len(lacking):
        return flagged.take(np.zeros(0, np.int64)), None
    if policy == "drop":
        listed = ", ".join(ids.take(pa.array(lacking[:SHOWN])).to_pylist())
        raise InputError(
            f"the stream of {'+'.join(view.pools)} does not cover the {len(ids)} aligned problems: {len(lacking)} have no verified trace: "
            f"{listed}{', …' if len(lacking) > SHOWN else ''}"
        )
    used = flagged.take(np.zeros(0, np.int64))
    if policy == "keep_flagged":
        mine = flagged.take(np.flatnonzero(np.isin(flagged.problem_N, lacking)))
        used = mine.take(Groups.of(mine.problem_N).start_P)
    native_P = np.setdiff1d(lacking, used.problem_N)
    solvable = inputs["solvable"].table("solvable", ["problem_id", "kept"])
    where = rows.positions(ids.take(pa.array(native_P)), solvable["problem_id"])
    table = kept_rollouts(inputs["rollouts"], solvable.take(pa.array(where)), ["problem_id", "sample", "text"])
    table = table.append_column("correct", pa.array([True] * table.num_rows))
    owner = rows.positions(table["problem_id"], ids)
    own = Candidates(owner, np.full(len(owner), -1), np.asarray(table["sample"]), np.arange(len(owner)))
    return _joined([used, own]), table


def _rows(view: StreamView, inputs: Inputs, ids: pa.ChunkedArray, picked: Candidates, native: pa.Table | None) -> pa.Table:
    """Columns OWN, pool and status of the picked candidates, in their order."""
    parts, order = [], []
    for number in sorted(set(picked.pool_N.tolist())):
        mine = np.flatnonzero(picked.pool_N == number)
        mine = mine[np.argsort(picked.row_N[mine], kind="stable")]
        order.append(mine)
        if number < 0:
            assert native is not None
            table = native.take(pa.array(picked.row_N[mine])).rename_columns(["problem_id", "candidate", "text", "correct"])
            table = table.append_column("teacher", pa.array([STUDENT] * len(mine), pa.string()))
            table = table.append_column("turns", pa.array([[]] * len(mine), STREAM.field("turns").type))
            status = pa.array([NATIVE] * len(mine), pa.string())
        else:
            columns = [*OWN, "status", "eligible"]
            table = rows.take(inputs[f"pool.{view.pools[number]}"], "candidates", picked.row_N[mine], columns)
            status = pc.if_else(table["eligible"], table["status"], "flagged")
        pool = pa.array([view.pools[number] if number >= 0 else NATIVE] * len(mine), pa.string())
        own = {name: table[name] for name in OWN}
        parts.append(pa.table({**own, "pool": pool, "status": status}))
    back = np.argsort(np.concatenate(order), kind="stable")
    table = pa.concat_tables(parts).take(pa.array(back))
    order_N = rows.positions(table["problem_id"], ids)
    if not np.array_equal(np.unique(order_N), np.arange(len(ids))) or (np.diff(order_N) < 0).any():
        raise InputError(f"the stream of {'+'.join(view.pools)} does not cover the aligned problems in their order")
    return table


def _annotated(
    inputs: Inputs,
    ids: pa.ChunkedArray,
    table: pa.Table,
    randomly: list[str],
    owner_G: np.ndarray,
    eligible_G: np.ndarray,
    weights: np.ndarray,
) -> pa.Table:
    """Adds question, weight, the random rule's choice and the number of the problem's eligible candidates."""
    problems = inputs["problems"].table("problems", ["problem_id", "question"])
    found = rows.owners(ids, problems["problem_id"], "is aligned, and is not among the problems")
    count_P = np.zeros(len(ids), np.int32)
    count_P[owner_G] = eligible_G
    problem_N = rows.positions(table["problem_id"], ids)
    columns = {name: table[name] for name in table.column_names}
    columns["question"] = problems["question"].take(pa.array(found[problem_N]))
    columns["weight"] = pa.array(weights)
    columns["random_candidate"] = pa.array(randomly, pa.string())
    columns["n_eligible"] = pa.array(count_P[problem_N])
    return pa.table({name: columns[name] for name in STREAM.names}).cast(STREAM)


def _digest(table: pa.Table) -> str:
    """Of the traces alone, in order: equal for two selections that chose the same texts."""
    hasher = hashlib.sha256()
    for batch in table.select(["problem_id", "text"]).to_batches(max_chunksize=rows.BATCH):
        for identity, text in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            for part in (identity, text):
                data = part.encode("utf-8", "surrogatepass")
                hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.hexdigest()
