"""The problems that every arm of a student can cover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.config.views import AlignedView
from qup.errors import InputError
from qup.pipeline.context import Context
from qup.records import ALIGNED, LOSSES
from qup.store import Artifact, rows, save_table

REASONS = ("wrong", "no_answer", "timeout", "cut_off", "refused", "echo", "prose", "empty", "error", "other", "no_candidate")
"""Why an arm has no verified trace for a problem; of several candidates' reasons the first in this order is told."""
FEWEST_SHARED = 10
"""Problems that teachers must have in common for arms of theirs to be compared."""


def run(view: AlignedView, inputs: Mapping[str, Artifact], ctx: Context) -> dict[str, Any]:
    """Writes `aligned` (surviving problem ids in order) and `losses` (arm, problem, reason); returns counts.

    With on_failure=drop a problem survives where every arm has a verified trace; otherwise all survive, and `losses`
    tells which arms have a stand-in. Raises InputError where nothing survives.
    """
    solvable = inputs["solvable"].table("solvable", ["problem_id", "n_samples", "n_correct"])
    ids = solvable["problem_id"]
    missing_AP = np.zeros((len(view.arms), len(ids)), bool)
    losses = []
    reasons: dict[str, dict[str, int]] = {}
    teachers = view.teachers or ("",) * len(view.arms)
    for number, (label, teacher) in enumerate(zip(view.arms, teachers, strict=True)):
        why_P = _why(label, teacher, inputs, ids)
        missing_AP[number] = why_P >= 0
        lost = np.flatnonzero(missing_AP[number])
        names = [REASONS[why] for why in why_P[lost]]
        losses.append(
            pa.table([pa.array([label] * len(lost), pa.string()), ids.take(pa.array(lost)), pa.array(names, pa.string())], schema=LOSSES)
        )
        reasons[label] = {name: names.count(name) for name in dict.fromkeys(sorted(names))}
    lost_P = missing_AP.any(0) if len(view.arms) else np.zeros(len(ids), bool)
    survives_P = ~lost_P if view.alignment.on_failure == "drop" else np.ones(len(ids), bool)
    _refuse_few(view, missing_AP, int(survives_P.sum()))
    if not survives_P.any():
        raise InputError(_nothing_left(view, missing_AP))
    save_table(ctx.out, "aligned", pa.table([ids.filter(pa.array(survives_P))], schema=ALIGNED))
    save_table(ctx.out, "losses", pa.concat_tables(losses) if losses else LOSSES.empty_table())
    rate_P = np.asarray(solvable["n_correct"]) / np.asarray(solvable["n_samples"])
    alone_AP = missing_AP & (missing_AP.sum(0) == 1)
    return {
        "n_solvable": len(ids),
        "n": int(survives_P.sum()),
        "n_dropped": int((~survives_P).sum()),
        "on_failure": view.alignment.on_failure,
        "lost": {label: int(missing_AP[number].sum()) for number, label in enumerate(view.arms)},
        "lost_alone": {label: int(alone_AP[number].sum()) for number, label in enumerate(view.arms)},
        "reasons": reasons,
        "solve_rate": _mean(rate_P),
        "solve_rate_kept": _mean(rate_P[~lost_P]),
        "solve_rate_dropped": _mean(rate_P[lost_P]),
    }


def _why(label: str, teacher: str, inputs: Mapping[str, Artifact], ids: pa.ChunkedArray) -> np.ndarray:
    """Index into REASONS for each problem without a verified trace in any of the arm's pools, −1 for the others."""
    none = len(REASONS) - 1
    why_P = np.full(len(ids), none, np.int64)
    label = label.removesuffix(f":{teacher}") if teacher else label
    parts = [label] if f"arm.{label}" in inputs else label.split("+")
    for part in parts:
        table = inputs[f"arm.{part}"].table("candidates", ["problem_id", "eligible", "verdict", "teacher"])
        if teacher:
            table = table.filter(pc.equal(table["teacher"], teacher))
        owner = rows.positions(table["problem_id"], ids)
        verdict = rows.positions(table["verdict"], pa.array(REASONS))
        verdict[verdict < 0] = REASONS.index("other")
        verdict[np.asarray(table["eligible"])] = -1
        np.minimum.at(why_P, owner[owner >= 0], verdict[owner >= 0])
    return why_P


def _refuse_few(view: AlignedView, missing_AP: np.ndarray, shared: int) -> None:
    """Refuses teachers whose arms share too few problems to be compared."""
    own = {teacher: int((~lost).sum()) for teacher, lost in zip(view.teachers, missing_AP, strict=True) if teacher} if view.teachers else {}
    if not own or (min(own.values()) >= FEWEST_SHARED and shared >= FEWEST_SHARED):
        return
    few = [name for name, count in own.items() if count < FEWEST_SHARED]
    counts = ", ".join(f"{name} {count}" for name, count in own.items())
    raise InputError(
        f"source.teacher: the arms share {shared} of {missing_AP.shape[1]} solvable problems, and at least {FEWEST_SHARED} are "
        f"needed to compare teachers; verified traces of each: {counts}; "
        + (f"leave out {', '.join(few)}" if 0 < len(few) < len(own) else "take more problems, or leave some teachers out")
    )


def _nothing_left(view: AlignedView, missing_AP: np.ndarray) -> str:
    counts = ", ".join(f"{label} lacks {int(lost.sum())}" for label, lost in zip(view.arms, missing_AP, strict=True))
    return (
        f"no problem has a verified trace in every arm (of {missing_AP.shape[1]} solvable ones: {counts or 'no arms'}); "
        "leave out the arm that fails, mend its Oracle, or set alignment.on_failure=native"
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
