"""The student's own rollouts as candidates, lightly cleaned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.answers.extraction import extract
from qup.candidates.problems import ProblemSet
from qup.candidates.table import STUDENT, Part, build
from qup.store import Artifact, rows
from qup.text.cleaning import clean


def native_candidates(
    rollouts: Artifact, verdicts: Artifact, problems: ProblemSet, bounds: Sequence[tuple[int, int]], cleaning: str, extraction: str
) -> Iterator[Part]:
    """All rollouts of the problems lo … hi−1 for each (lo, hi): candidate = sample; eligible ones are cleaned."""
    owner = rows.positions(rollouts.table("rollouts", ["problem_id"])["problem_id"], problems.ids)
    groups = [np.flatnonzero((owner >= lo) & (owner < hi)) for lo, hi in bounds]
    drawn = rows.pieces(rollouts, "rollouts", groups, ["text"])
    judged = rows.pieces(verdicts, "verdicts", groups, ["problem_id", "sample", "extracted", "correct", "verdict", "eligible"])
    for responses, table in zip(drawn, judged, strict=True):
        n = table.num_rows
        counts: Counter[str] = Counter()
        texts, fired = [], []
        for text, eligible in zip(responses["text"].to_pylist(), table["eligible"].to_pylist(), strict=True):
            rules: tuple[str, ...] = ()
            if eligible and cleaning == "light":
                done = clean(text, lambda cleaned: extract(cleaned, extraction))
                text, rules = done.text, done.rules
                counts.update(f"cleaning.{rule}" for rule in done.rules)
                counts.update(f"cleaning_undone.{rule}" for rule in done.undone)
            texts.append(text)
            fired.append(rules)
        yield build(
            {
                **{name: table[name] for name in ("problem_id", "extracted", "correct", "verdict", "eligible")},
                "candidate": table["sample"],
                "teacher": [STUDENT] * n,
                "text": texts,
                "rules": fired,
                "status": pc.if_else(table["eligible"], "ok", "flagged") if n else pa.array([], pa.string()),
            },
            counts,
        )
