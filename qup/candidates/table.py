"""Finished pieces of a candidates table, with the counts that its columns do not hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qup.records import CANDIDATES

DEFAULTS: dict[str, Any] = {"attempts": 0, "input_tokens": 0, "output_tokens": 0, "edit_distance": float("nan")}
STUDENT, DATASET = "student", "dataset"
"""Teachers of the pools that no Oracle and no file wrote."""
_COUNTS = b"qup.counts"

Counts = Mapping[str, float]


@dataclass(frozen=True)
class Part:
    """Rows of schema CANDIDATES and counts by name (`cleaning.<rule>`, `failures.<kind>`, `usd` …)."""

    table: pa.Table
    counts: dict[str, float]

    def shard(self) -> pa.Table:
        """The table with the counts in its metadata, so that a shard is one file."""
        return self.table.replace_schema_metadata({_COUNTS: json.dumps(self.counts, sort_keys=True)})

    @classmethod
    def of_shard(cls, table: pa.Table) -> Part:
        """What `shard` made."""
        counts = json.loads((table.schema.metadata or {}).get(_COUNTS, b"{}"))
        return cls(table.replace_schema_metadata(None).cast(CANDIDATES), counts)


def build(columns: Mapping[str, Any], counts: Counts) -> Part:
    """A Part from columns; those of an Oracle may be left out."""
    n = len(columns["problem_id"])
    full = {name: [value] * n for name, value in DEFAULTS.items()} | {"rules": [()] * n, "turns": [()] * n} | dict(columns)
    arrays = []
    for field in CANDIDATES:
        value = full[field.name]
        arrays.append(value.cast(field.type) if isinstance(value, pa.ChunkedArray | pa.Array) else pa.array(value, field.type))
    return Part(pa.table(arrays, schema=CANDIDATES), dict(counts))


class Tally:
    """Adds up parts into the stage's metrics."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.sums: Counter[str] = Counter()
        self.distances: list[np.ndarray] = []
        self.teachers: dict[str, Counter[str]] = {}

    def add(self, part: Part) -> None:
        """Counts in one part; a problem's rows lie in one part."""
        table = part.table
        self.counts.update(part.counts)
        for entry in pc.value_counts(table["verdict"]).to_pylist():
            self.verdicts[entry["values"]] += entry["counts"]
        eligible = table["eligible"]
        self.sums["n"] += table.num_rows
        self.sums["n_eligible"] += int(pc.sum(eligible).as_py() or 0)
        self.sums["n_problems"] += pc.count_distinct(table["problem_id"]).as_py()
        self.sums["n_problems_eligible"] += pc.count_distinct(table["problem_id"].filter(eligible)).as_py()
        self.sums["unchanged"] += int(pc.sum(pc.and_(eligible, pc.equal(table["status"], "unchanged"))).as_py() or 0)
        for name in ("attempts", "input_tokens", "output_tokens"):
            self.sums[name] += int(pc.sum(table[name]).as_py() or 0)
        self._add_teachers(table)
        distance = np.asarray(table["edit_distance"].filter(eligible))
        self.distances.append(distance[~np.isnan(distance)])

    def _add_teachers(self, table: pa.Table) -> None:
        first = pc.and_(table["correct"], pc.less_equal(table["attempts"], 1))
        told = pa.table({"teacher": table["teacher"], "n": table["correct"], "right": table["correct"], "first": first})
        grouped = told.group_by("teacher").aggregate([("n", "count"), ("right", "sum"), ("first", "sum")])
        for entry in grouped.to_pylist():
            own = self.teachers.setdefault(entry["teacher"], Counter())
            own.update({"n": entry["n_count"], "correct": entry["right_sum"], "first_correct": entry["first_sum"]})

    def metrics(self) -> dict[str, Any]:
        """The stage's figures; counts of the form `group.name` become nested."""
        nested: dict[str, Any] = {"cleaning": {}, "cleaning_undone": {}, "failures": {}, "usd": 0.0}
        for name, value in sorted(self.counts.items()):
            count = value if name == "usd" else int(value)
            group, _, inner = name.partition(".")
            if inner:
                nested.setdefault(group, {})[inner] = count
            else:
                nested[group] = count
        distance = np.concatenate(self.distances) if self.distances else np.zeros(0)
        names = ("n", "n_problems", "n_eligible", "n_problems_eligible", "unchanged", "attempts", "input_tokens", "output_tokens")
        return {
            **{name: self.sums[name] for name in names},
            "verdicts": dict(sorted(self.verdicts.items())),
            "teachers": {name: dict(own) for name, own in sorted(self.teachers.items())},
            "mean_edit_distance": float(distance.mean()) if len(distance) else None,
            **nested,
        }
