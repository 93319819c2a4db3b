"""The training problems: loaded, without what has no gold answer, without what stands in a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from qup.config.views import ProblemsView
from qup.data.decontamination import overlaps
from qup.data.sets import load_benchmark, load_problems
from qup.errors import InputError
from qup.pipeline.context import Context
from qup.store import Artifact, save_table


def run(view: ProblemsView, inputs: Mapping[str, Artifact], ctx: Context) -> dict[str, Any]:
    """Writes `problems`; returns n_loaded, excluded_no_gold, overlap (by benchmark and measure), removed and n.

    Raises InputError where nothing is left.
    """
    cfg = view.problems
    table, counts = load_problems(cfg)
    ctx.log.info(
        "%d problems loaded from %s, %d without a gold answer excluded", counts["n_loaded"], cfg.path or "lab", counts["excluded_no_gold"]
    )
    against = {
        name: load_benchmark(name, benchmark, "problems.decontaminate_against")["question"].to_pylist()
        for name, benchmark in cfg.decontaminate_against.items()
    }
    found = overlaps(table["question"].to_pylist(), against)
    removed_P = np.zeros(table.num_rows, bool)
    overlap = {}
    for name, of in found.items():
        removed_P |= of.removed(cfg.decontamination)
        overlap[name] = {"exact": int(of.exact_P.sum()), "ngram13": int(of.ngram13_P.sum())}
        ctx.log.info("%s: %d problems stand in it, %d share 13 words with it", name, overlap[name]["exact"], overlap[name]["ngram13"])
    kept = table.filter(pa.array(~removed_P))
    if not kept.num_rows:
        raise InputError(
            f"no problem is left of {counts['n_loaded']}: {counts['excluded_no_gold']} have no gold answer, "
            f"decontamination={cfg.decontamination} removed {int(removed_P.sum())}"
        )
    save_table(ctx.out, "problems", kept)
    ctx.progress(kept.num_rows, kept.num_rows, "problems")
    return {**counts, "decontamination": cfg.decontamination, "overlap": overlap, "removed": int(removed_P.sum()), "n": kept.num_rows}
