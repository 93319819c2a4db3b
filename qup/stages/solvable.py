"""Stage: the fixed problem set, and the trace that slm_rft keeps of each problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from qup.config.views import SolvableView
from qup.context import Context
from qup.draws import choose
from qup.errors import InputError
from qup.records import SOLVABLE
from qup.store import Artifact, save_table


def run(view: SolvableView, inputs: Mapping[str, Artifact], ctx: Context) -> dict[str, Any]:
    """Writes the table `solvable`: problems with a correct rollout that ended by a stop id, in the problem set's order.

    The kept trace is drawn at random among them, not ranked (PAPER, protocol 2). InputError where there is none.
    """
    rollouts = inputs["rollouts"].table("rollouts", ["problem_id", "sample", "correct", "eligible"])
    coded = rollouts["problem_id"].combine_chunks().dictionary_encode()
    code = coded.indices.to_numpy(zero_copy_only=False)
    names = coded.dictionary.to_pylist()
    sample = rollouts["sample"].to_numpy()
    correct, eligible = (rollouts[name].to_numpy(zero_copy_only=False) for name in ("correct", "eligible"))
    n_samples, n_correct, n_eligible = (
        np.bincount(code, weights=w, minlength=len(names)).astype(int) for w in (np.ones(len(code)), correct, eligible)
    )
    order = np.lexsort((sample, code))
    order = order[eligible[order]]
    starts = np.searchsorted(code[order], np.arange(len(names)))
    rows = []
    for problem in np.flatnonzero(n_eligible):
        among = sample[order[starts[problem] : starts[problem] + n_eligible[problem]]]
        kept = int(among[choose(view.seed, names[problem], len(among))])
        rows.append((names[problem], n_samples[problem], n_correct[problem], n_eligible[problem], kept))
    if not rows:
        metrics = inputs["rollouts"].metrics
        raise InputError(
            f"no problem is solvable: of {metrics['n_samples']} rollouts {metrics['correct']} are correct, {metrics['truncated']} were cut off and "
            f"{metrics['no_answer']} hold no answer; try easier problems (problems=), more rollouts (rollouts.sampling.n), a longer limit "
            "(rollouts.sampling.max_new_tokens), another template (model.template) or extraction (rollouts.extraction)"
        )
    columns = list(zip(*rows, strict=True))
    table = pa.table([pa.array(list(column), field.type) for column, field in zip(columns, SOLVABLE, strict=True)], schema=SOLVABLE)
    save_table(ctx.out, "solvable", table)
    top = int(n_samples.max())
    return {
        "n": len(rows),
        "n_problems": len(names),
        "share": len(rows) / len(names),
        "n_correct_only_cut_off": int(((n_correct > 0) & (n_eligible == 0)).sum()),
        "histogram": np.bincount(n_correct, minlength=top + 1).tolist(),
        "solve_rate": float(n_correct.sum() / n_samples.sum()),
    }
