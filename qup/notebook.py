"""A study in a notebook: its tables as pandas DataFrames, read from the store and never touched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qup.errors import CorruptArtifact, InputError, StoreError
from qup.pipeline.graph import Ref
from qup.store import Artifact, Store
from qup.study import FILE, Cell, StageRef, Study, find_study, studies_in

if TYPE_CHECKING:
    from pandas import DataFrame

    from qup.analysis.findings.survey import Survey
    from qup.analysis.statistics.estimates import Estimate

NAMED = 12
"""Names that an error lists."""


class OpenStudy:
    """A study as it stands in its store; every call reads anew, so that it may be used while the study runs.

    A `cell` is a label, a cell's number, or the beginning of a label where the cells that begin so agree in what is asked for.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._survey: tuple[object, Survey] | None = None

    @classmethod
    def find(cls, study: str | PathLike[str], dir: str | PathLike[str] = "multirun") -> OpenStudy:
        """As `qup.open`."""
        shown, folder = Path(dir), Path(study)
        if not (folder / FILE).exists() and not studies_in(shown):
            raise InputError(
                f"study {str(study)!r}: no study is in {shown}/; name the folder you launched into with dir=, or the study's own"
            )
        return cls(find_study(str(study), shown))

    def __repr__(self) -> str:
        return f"OpenStudy({self.study.name!r}, {len(self.study.cells)} cells, store {self.study.store})"

    @property
    def name(self) -> str:
        return self.study.name

    @property
    def labels(self) -> list[str]:
        """The cells' labels, in the study's order."""
        return [cell.label for cell in self.study.cells]

    def cells(self) -> DataFrame:
        """One row a cell: settings, measures, accuracies in percent, keys; `missing` names the stages that are not in the store. As cells.csv."""
        from qup.analysis.results.cells import cells_table

        return _frame(cells_table(self.study, self.study.open_store()))

    def arms(self) -> DataFrame:
        """One row an arm under a setting, replicates taken together: accuracies and rewards with 95 % intervals, perplexity, retention."""
        rows = []
        for one in self._surveyed().summaries:
            row = {"student": one.student, "arm": one.arm, "setting": one.setting, "seeds": len(one.runs)}
            row |= {"cells": [run.cell.label for run in one.runs], **_interval("total", one.total), **_interval("total_pooled", one.pooled)}
            for name, found in one.benchmarks.items():
                row |= _interval(name, found)
            for name, found in one.rewards.items():
                row |= _interval(f"reward_{name}", found)
            rows.append({**row, **_interval("ppl", one.ppl), **_interval("retention", one.retention), **one.figures})
        return _frame(rows)

    def contrasts(self) -> DataFrame:
        """One row a planned comparison, `arm` minus `other` on the same problems, in points of accuracy.

        `low` and `high` bound 95 % of that comparison alone, `p_holm` is corrected over the `family`, `detectable` is the
        smallest true difference found with 80 % power; `fault` says why there is no number.
        """
        rows = []
        for one in self._surveyed().contrasts:
            row = {name: getattr(one, name) for name in ("student", "setting", "arm", "other", "question")}
            row |= {**_interval("total", one.total), "p": one.total.p if one.total else math.nan}
            row |= {name: getattr(one, name) for name in ("p_holm", "family", "detectable")}
            row |= {
                "n": one.total.n if one.total else None,
                "seeds": one.total.seeds if one.total else None,
                **_interval("pooled", one.pooled),
            }
            for name, found in (one.benchmarks or {}).items():
                row |= _interval(name, found)
            rows.append({**row, "fault": one.fault})
        return _frame(rows, integers=("n", "seeds", "family"))

    def traces(self, cell: str | int) -> DataFrame:
        """One row a trace that the cell is trained on, with its scores and verdict.

        Beside the columns of the stream (problem_id, question, text, …): `extracted`, `verdict`, `edit_distance` and
        `attempts` of the candidate it was; `reward_<name>`, NaN where the trace does not fit; `nll` (nats, summed),
        `n_tokens` and `ppl` under the untuned student; `retention` (1 to 5) where it was judged. What is not in the
        store yet has no columns.
        """
        found = self._cell(cell, "stream")
        if found.is_base:
            raise InputError(f"cell {found.label!r}: the untuned student is trained on no traces; {self._those_with('stream')}")
        store = self.study.open_store()
        made = self._needed(store, found, found.refs("stream")).table("stream").to_pandas()
        made = _with_verdicts(made, store, found)
        for stage in found.refs("reward"):
            made = _beside(made, store, stage, "scores", {"score": f"reward_{stage.name}"})
        for stage in found.refs("perplexity"):
            made = _beside(made, store, stage, "totals", {"nll": "nll", "n_tokens": "n_tokens"})
        if "nll" in made:
            import numpy as np

            made["ppl"] = np.exp(made["nll"] / made["n_tokens"])
        return _with_retention(made, store, found)

    def outcomes(self, cell: str | int, dev: bool = False) -> DataFrame:
        """Whether each answer is right: a row a problem, indexed by (benchmark, problem_id), a column a sample.

        `dev` gives the problems that were kept apart for choosing instead.
        """
        found = self._cell(cell, "evaluate")
        artifact = self._needed(self.study.open_store(), found, found.refs("evaluate"))
        table = artifact.table("verdicts", ["benchmark", "problem_id", "dev", "sample", "correct"]).to_pandas()
        table = table[table["dev"] == dev]
        wide = table.set_index(["benchmark", "problem_id", "sample"])["correct"].astype("boolean").unstack("sample")
        return wide.reindex(table.set_index(["benchmark", "problem_id"]).index.unique())

    def artifact(self, kind: str, cell: str | int, name: str = "") -> Artifact:
        """What one stage of a cell made: `.metrics`, `.manifest`, `.table(name)` (Arrow), `.path`.

        `name` tells stages of one kind apart, such as a reward model's. Its bytes are compared with its checksums as they
        are read. Raises InputError that names what there is, StoreError where it is not stored.
        """
        found = self._cell(cell, kind)
        stages = list(found.refs(kind))
        if not stages:
            raise InputError(
                f"artifact {kind!r}: cell {found.label!r} has no such stage; it has {', '.join(dict.fromkeys(stage.column for stage in found.refs()))}"
            )
        names = [stage.name for stage in stages]
        if len(stages) > 1 and not name:
            raise InputError(f"artifact {kind!r}: cell {found.label!r} has several; give name=, one of {_listed(names)}")
        chosen = [stage for stage in stages if not name or stage.name == name]
        if not chosen:
            has = f"there are {_listed(names)}" if any(names) else "it has one, without a name"
            raise InputError(f"artifact {kind!r} of cell {found.label!r}: name={name!r} is not there; {has}")
        return self._needed(self.study.open_store(), found, chosen)

    def plan(self) -> DataFrame:
        """One row a stage that launching the study now would come to: stored, to run, or not needed; and what running it is expected to cost.

        As qup is now: a stage whose version rose since the launch has another key.
        """
        from qup.launch.plan import plan_graph
        from qup.pipeline import build_graph

        configs = self.study.configs()
        graph = build_graph(configs)
        plan = plan_graph(graph, _ReadOnly(self.study.store), configs[0], self.study.folder)
        rows = []
        for ref, node in graph.nodes.items():
            planned = plan.to_run.get(ref)
            state = "run" if planned else "stored" if ref in plan.stored else "not needed"
            row: dict[str, Any] = {"stage": ref.kind, "key": ref.key, "label": node.label, "state": state}
            row["cells"] = [graph.cells[index].label for index in graph.users.get(ref, ())]
            rows.append({**row, **(asdict(planned.cost) if planned else {})})
        return _frame(rows)

    def status(self) -> DataFrame:
        """One row a stage of a cell, as it stands: stored, running, queued, held, failed, cancelled, lost, blocked or waiting; and why.

        Stages above a stored result are left out. `.attrs` tells of the whole: ended, good, slurm and driver (why the
        queue could not be asked, what became of the driver).
        """
        from qup.launch.slurm.commands import Slurm
        from qup.launch.slurm.site import on_slurm
        from qup.launch.status import study_status

        folder = self.study.folder
        seen = study_status(folder, Slurm(patience_s=5.0) if on_slurm(folder) else None)
        rows = [
            {"cell": cell.label, "stage": one.ref.kind, "key": one.ref.key, "state": one.state, "detail": one.detail, "job": one.job}
            for cell in seen.study.cells
            for one in seen.of_cell(cell)
        ]
        made = _frame(rows)
        made.attrs = {"ended": seen.ended(), "good": seen.good(), "slurm": seen.slurm, "driver": seen.driver}
        return made

    def _surveyed(self) -> Survey:
        """The analysis, made anew once the store holds more or less of the study."""
        from qup.analysis.findings.survey import survey
        from qup.analysis.results.shelf import Shelf

        store = self.study.open_store()
        stored = frozenset(stage.ref for cell in self.study.cells for stage in cell.refs() if store.exists(*stage.ref))
        if self._survey is None or self._survey[0] != stored:
            self._survey = stored, survey(self.study, Shelf(store))
        return self._survey[1]

    def _cell(self, label: str | int, column: str) -> Cell:
        """The cell; of several that begin so any, where they share the stages of a column."""
        found = self.study.find(str(label))
        if found is not None:
            return found
        begins = [cell for cell in self.study.cells if cell.label.startswith(f"{str(label).rstrip('/')}/")]
        if len({tuple(cell.refs(column)) for cell in begins}) == 1:
            return begins[0]
        if begins:
            raise InputError(
                f"cell {label!r}: stands for several whose {column} differs: {_listed(cell.label for cell in begins)}; give one"
            )
        raise InputError(
            f"cell {label!r}: not in study {self.name}; there are {_listed(self.labels)} (or a number below {len(self.labels)})"
        )

    def _those_with(self, column: str) -> str:
        return f"of those that are, there are {_listed(cell.label for cell in self.study.cells if cell.key(column))}"

    def _needed(self, store: Store, cell: Cell, stages: Any) -> Artifact:
        stage = next(iter(stages))
        found = store.get(*stage.ref)
        if found is None:
            stored = [one.column for one in cell.refs() if store.exists(*one.ref)]
            raise StoreError(
                f"{stage.ref} of cell {cell.label!r}: not stored yet; of this cell there is {_listed(dict.fromkeys(stored)) or 'nothing'}"
            )
        return found


class _ReadOnly(Store):
    """A store of which a plan moves nothing: a corrupt artifact counts as missing, and stays."""

    def get_sound(self, stage: str, key: str) -> Artifact | None:
        try:
            return self.get(stage, key)
        except CorruptArtifact:
            return None


def _frame(rows: Sequence[Mapping[str, Any]], integers: Sequence[str] = ()) -> DataFrame:
    """A column a key of any row, in the order of their first sight."""
    import pandas

    made = pandas.DataFrame(list(rows), columns=list(dict.fromkeys(name for row in rows for name in row)))
    return made.astype({name: "Int64" for name in integers if name in made})


def _interval(name: str, one: Estimate | None) -> dict[str, float]:
    values = (math.nan,) * 3 if one is None else (one.value, one.low, one.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _listed(names: Any) -> str:
    known = list(names)
    return ", ".join(known[:NAMED]) + (f", … ({len(known)} in all)" if len(known) > NAMED else "")


def _beside(made: DataFrame, store: Store, stage: StageRef, table: str, columns: Mapping[str, str]) -> DataFrame:
    """Columns of a table that has one row a trace of the stream, in its order."""
    artifact = store.get(*stage.ref)
    if artifact is None:
        return made
    found = artifact.table(table, ["problem_id", *columns]).to_pandas()
    if found["problem_id"].tolist() != made["problem_id"].tolist():
        raise StoreError(f"{stage.ref}: its {len(found)} scores are not of the stream's {len(made)} traces; launch the study again")
    return made.assign(**{new: found[old].to_numpy() for old, new in columns.items()})


def _with_verdicts(made: DataFrame, store: Store, cell: Cell) -> DataFrame:
    """What the pools know of the candidates that the traces were; nothing of stand-ins."""
    import pandas

    pools = []
    for stage in cell.refs("candidates"):
        artifact = store.get(*stage.ref)
        if artifact is not None:
            columns = ["problem_id", "candidate", "extracted", "verdict", "edit_distance", "attempts"]
            pools.append(artifact.table("candidates", columns).to_pandas().assign(pool=stage.name))
    if not pools:
        return made
    return made.merge(pandas.concat(pools), how="left", on=["pool", "problem_id", "candidate"], validate="one_to_one")


def _with_retention(made: DataFrame, store: Store, cell: Cell) -> DataFrame:
    """The judge's ratings, which are of problems: none where a problem has several traces."""
    ref: Ref | None = cell.key("retention")
    artifact = store.get(*ref) if ref is not None else None
    if artifact is None or made["problem_id"].duplicated().any():
        return made
    rating = artifact.table("retention", ["problem_id", "rating"]).to_pandas().set_index("problem_id")["rating"]
    return made.assign(retention=made["problem_id"].map(rating))
