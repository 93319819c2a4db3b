"""Compatibility-guided refinement: which problems are still open, and which try is accepted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from qup.scoring.totals import pool_totals
from qup.store import Artifact, rows

NLL = "nll."
NATIVE = "nll.native"


def native_nll(inputs: Mapping[str, Artifact], ids: pa.ChunkedArray) -> np.ndarray:
    """Nats a token of each problem's kept native trace, [P]; raises InputError naming a problem that has none."""
    table = pool_totals(inputs[NATIVE])
    return per_token(table)[rows.owners(ids, table["problem_id"], f"has no NLL of its native trace in perplexity/{inputs[NATIVE].key}")]


def per_token(table: pa.Table) -> np.ndarray:
    """Nats a token of every row of a TOTALS table; NaN for empty traces."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(table["nll"]) / np.asarray(table["n_tokens"])


def still_open(inputs: Mapping[str, Artifact], ids: pa.ChunkedArray, margin: float, number: int) -> np.ndarray:
    """Problems [P] without an answer of an earlier round within `margin` nats a token of the native trace, in round `number`."""
    open_P = np.ones(len(ids), bool)
    if number <= 1:
        return open_P
    bound_P = native_nll(inputs, ids) + margin
    for earlier in range(1, number):
        table = pool_totals(inputs[f"{NLL}{earlier}"])
        owner = rows.positions(table["problem_id"], ids)
        near = (owner >= 0) & (per_token(table) <= bound_P[np.maximum(owner, 0)])
        open_P[owner[near]] = False
    return open_P
