"""The fixed problem set of every stream: problems with at least one rollout that is right and ended by a stop id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from qup.config.views import SolvableView
from qup.draws import choose
from qup.errors import InputError
from qup.pipeline.context import Context
from qup.records import SOLVABLE
from qup.store import Artifact, save_table
from qup.store.rows import owners

Inputs = Mapping[str, Artifact]


def run(view: SolvableView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `solvable` in the problems' order; `kept` is drawn at random among a problem's eligible rollouts.

    Raises InputError where no problem is solvable, with the numbers that say why.
    """
    ids = inputs["problems"].table("problems", ["problem_id"])["problem_id"]
    rollouts = inputs["verdicts"].table("verdicts", ["problem_id", "sample", "correct", "eligible"])
    owner_N = owners(rollouts["problem_id"], ids, "has rollouts, and is not among the problems")
    sample_N, correct_N, eligible_N = (np.asarray(rollouts[name]) for name in ("sample", "correct", "eligible"))
    samples_P, correct_P, eligible_P = (
        np.bincount(owner_N, weights=weight, minlength=len(ids)).astype(np.int64)
        for weight in (np.ones(len(owner_N)), correct_N, eligible_N)
    )
    solvable = np.flatnonzero(eligible_P)
    if not len(solvable):
        raise InputError(_why_none(inputs["verdicts"].metrics, len(ids), len(owner_N), int(correct_N.sum())))
    good = np.flatnonzero(eligible_N)
    good = good[np.lexsort((sample_N[good], owner_N[good]))]
    first_P = np.cumsum(eligible_P) - eligible_P
    names = ids.take(pa.array(solvable)).to_pylist()
    kept = [
        int(sample_N[good[first_P[problem] + choose(view.seed, name, int(eligible_P[problem]))]])
        for problem, name in zip(solvable.tolist(), names, strict=True)
    ]
    counts = {"n_samples": samples_P, "n_correct": correct_P, "n_eligible": eligible_P}
    columns = {"problem_id": names, **{name: count_P[solvable] for name, count_P in counts.items()}, "kept": kept}
    save_table(ctx.out, "solvable", pa.Table.from_pydict(columns, schema=SOLVABLE))
    most = int(samples_P.max())
    return {
        "n_problems": len(ids),
        "n_solvable": len(solvable),
        "share_solvable": len(solvable) / len(ids),
        "n_eligible": int(eligible_P.sum()),
        "pool_size": float(eligible_P[solvable].mean()),
        "share_multi": float((eligible_P[solvable] > 1).mean()),
        "correct_of_n": np.bincount(correct_P, minlength=most + 1).tolist(),
        "eligible_of_n": np.bincount(eligible_P, minlength=most + 1).tolist(),
    }


def _why_none(metrics: Mapping[str, Any], problems: int, samples: int, correct: int) -> str:
    """What to change, judged from the rollouts' counts."""
    told = {name: int(metrics.get(name, 0)) for name in ("no_answer", "truncated", "undecided", "timeouts", "correct_cut_off")}
    advice = []
    if told["truncated"] * 2 > samples or told["correct_cut_off"]:
        advice.append("raise rollouts.sampling.max_new_tokens, or see model.stop: most were cut off before a stop token")
    if told["no_answer"] * 2 > samples:
        advice.append("choose another rollouts.extraction or model.template: most hold no answer that it reads")
    advice.append("take easier problems, more samples (rollouts.sampling.n) or a stronger model")
    return (
        f"no problem is solvable: of {samples} rollouts to {problems} problems {correct} are correct and none of those ended by a stop token with "
        f"a text; {told['no_answer']} without an answer, {told['truncated']} cut off at the length limit ({told['correct_cut_off']} of them correct), "
        f"{told['undecided']} comparisons undecided, {told['timeouts']} timed out. What may help: {'; '.join(advice)}"
    )
