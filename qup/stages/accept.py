"""Compatibility-guided refinement, its end: of a problem's verified tries the one nearest to the student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from qup.candidates.problems import kept_rollouts
from qup.candidates.rounds import native_nll, per_token
from qup.candidates.table import STUDENT
from qup.config.views import AcceptView
from qup.errors import InputError
from qup.pipeline.context import Context
from qup.records import CANDIDATES
from qup.scoring.totals import pool_totals
from qup.selection import Groups, highest_rows, joint_value
from qup.store import Artifact, rows, save_table

Inputs = Mapping[str, Artifact]


def run(view: AcceptView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `candidates`, one row a solvable problem: the accepted try, or the kept native trace where no try is correct.

    Attempts and tokens of a row are those of all rounds together.
    """
    solvable = inputs["solvable"].table("solvable", ["problem_id", "kept"])
    ids = solvable["problem_id"]
    tries = _tries(view, inputs, ids)
    groups = Groups.of(tries["problem"])
    owner_G = tries["problem"][groups.start_P]
    names = ids.take(pa.array(owner_G)).to_pylist()
    chosen = highest_rows(groups, _value(view, groups, tries), names, None if view.refinement.accept == "first_correct" else view.seed)
    accepted_P = np.full(len(ids), -1, np.int64)
    accepted_P[owner_G] = chosen
    table = pa.concat_tables([*_accepted(inputs, ids, tries, chosen), _native(inputs, solvable, accepted_P < 0)])
    table = table.take(pa.array(np.argsort(rows.positions(table["problem_id"], ids), kind="stable")))
    table = _with_costs(inputs, ids, table)
    save_table(ctx.out, "candidates", table)
    distance = np.asarray(table["edit_distance"])
    distance = distance[~np.isnan(distance)]
    native_P = native_nll(inputs, ids)
    gap = tries["nll"][chosen] - native_P[owner_G]
    return {
        "n": table.num_rows,
        "n_problems": table.num_rows,
        "n_eligible": table.num_rows,
        "native": int((accepted_P < 0).sum()),
        "mean_edit_distance": float(distance.mean()) if len(distance) else None,
        "unchanged": int(np.sum(np.asarray(table["status"]) == "unchanged")),
        "accepted_by_round": {str(number): int((tries["round"][chosen] == number).sum()) for number in _rounds(inputs)},
        "asked_by_round": {str(number): len(inputs[f"round.{number}"].table("candidates", ["candidate"])) for number in _rounds(inputs)},
        "within_margin": int((gap <= view.refinement.margin).sum()),
        "mean_nll_accepted": float(tries["nll"][chosen].mean()) if len(chosen) else None,
        "mean_nll_native": float(native_P.mean()) if len(ids) else None,
        "mean_gap": float(gap.mean()) if len(gap) else None,
        "attempts": int(np.sum(np.asarray(table["attempts"]))),
        "input_tokens": int(np.sum(np.asarray(table["input_tokens"]))),
        "output_tokens": int(np.sum(np.asarray(table["output_tokens"]))),
    }


def _rounds(inputs: Inputs) -> list[int]:
    return sorted(int(name.removeprefix("round.")) for name in inputs if name.startswith("round."))


def _tries(view: AcceptView, inputs: Inputs, ids: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """All verified tries, sorted by problem and round: columns problem, round, row, nll, reward."""
    parts: list[dict[str, np.ndarray]] = []
    for number in _rounds(inputs):
        table = inputs[f"round.{number}"].table("candidates", ["problem_id", "candidate", "eligible"])
        row = np.flatnonzero(np.asarray(table["eligible"]))
        keys = table.take(pa.array(row))
        owner = rows.positions(keys["problem_id"], ids)
        scores = {"nll": per_token(totals := pool_totals(inputs[f"nll.{number}"]))[_found(keys, totals, f"nll.{number}")]}
        if view.refinement.accept == "joint" and f"reward.{number}" in inputs:
            rewards = inputs[f"reward.{number}"].table("scores")
            scores["reward"] = np.asarray(rewards["score"])[_found(keys, rewards, f"reward.{number}")]
        else:
            scores["reward"] = np.full(len(row), np.nan)
        part = {"problem": owner, "round": np.full(len(row), number), "row": row, **scores}
        parts.append({name: values[owner >= 0] for name, values in part.items()})
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((merged["row"], merged["round"], merged["problem"]))
    return {name: values[order] for name, values in merged.items()}


def _found(keys: pa.Table, scored: pa.Table, name: str) -> np.ndarray:
    found = rows.match(keys, scored)
    if (found < 0).any():
        missing = keys.take(pa.array(np.flatnonzero(found < 0)[:10])).to_pylist()
        listed = ", ".join(f"{entry['problem_id']}/{entry['candidate']}" for entry in missing)
        raise InputError(f"{name} has no score of {int((found < 0).sum())} verified tries: {listed}")
    return found


def _value(view: AcceptView, groups: Groups, tries: dict[str, np.ndarray]) -> np.ndarray:
    match view.refinement.accept:
        case "first_correct":
            return np.zeros(len(tries["nll"]))
        case "perplexity":
            return -tries["nll"]
        case _:
            if np.isnan(tries["reward"]).all() and len(tries["reward"]):
                raise InputError("refinement.accept=joint: no try has a reward; set refinement.reward to a configured reward model")
            return joint_value(groups, tries["reward"], tries["nll"], view.refinement.weight)


def _accepted(inputs: Inputs, ids: pa.ChunkedArray, tries: dict[str, np.ndarray], chosen: np.ndarray) -> list[pa.Table]:
    parts = []
    for number in _rounds(inputs):
        mine = chosen[tries["round"][chosen] == number]
        parts.append(rows.take(inputs[f"round.{number}"], "candidates", np.sort(tries["row"][mine]), CANDIDATES.names).cast(CANDIDATES))
    return parts


def _native(inputs: Inputs, solvable: pa.Table, wanted_P: np.ndarray) -> pa.Table:
    """The kept native traces of some problems, as they were sampled."""
    wanted = solvable.filter(pa.array(wanted_P))
    table = kept_rollouts(inputs["rollouts"], wanted, ["problem_id", "sample", "text"])
    judged = kept_rollouts(inputs["rollouts"], wanted, ["extracted", "correct", "verdict"], inputs["verdicts"])
    for name in judged.column_names:
        table = table.append_column(name, judged[name])
    n = table.num_rows
    full = {
        **{name: table[name] for name in ("problem_id", "text", "extracted", "correct", "verdict")},
        "candidate": table["sample"],
        "teacher": [STUDENT] * n,
        "eligible": [True] * n,
        "status": ["native"] * n,
        **{name: [0] * n for name in ("attempts", "input_tokens", "output_tokens")},
        "edit_distance": [float("nan")] * n,
        "rules": [[]] * n,
        "turns": [[]] * n,
    }
    arrays = [
        full[field.name] if isinstance(full[field.name], pa.ChunkedArray) else pa.array(full[field.name], field.type)
        for field in CANDIDATES
    ]
    return pa.table(arrays, names=CANDIDATES.names).cast(CANDIDATES)


def _with_costs(inputs: Inputs, ids: pa.ChunkedArray, table: pa.Table) -> pa.Table:
    """Attempts and tokens of every round added up by problem."""
    for name in ("attempts", "input_tokens", "output_tokens"):
        total_P = np.zeros(len(ids))
        for number in _rounds(inputs):
            spent = inputs[f"round.{number}"].table("candidates", ["problem_id", name])
            owner = rows.positions(spent["problem_id"], ids)
            total_P += np.bincount(owner[owner >= 0], np.asarray(spent[name])[owner >= 0], len(ids))
        index = table.schema.get_field_index(name)
        table = table.set_column(index, CANDIDATES.field(name), pa.array(total_P.astype(np.int32)))
    return table
