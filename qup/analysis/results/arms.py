"""Which cells are compared with which: student, arm, setting, and replicates that differ in seeds alone."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from qup.config.fingerprint import fields
from qup.config.schema import Config
from qup.study import Cell, Study

SEEDS = ("model.lab.seed", "rollouts.sampling.seed", "selection.seed", "oracle.seed", "trainer.seed", "evaluation.sampling.seed", "seed")
"""What a replicate may differ in."""
BASE_SEEDS = ("model.lab.seed", "evaluation.sampling.seed")
STUDENT = ("model.", "problems.", "rollouts.")
"""Sections whose settings make a student."""
FEWEST_STUDENTS = 3
"""Students of different names that make an axis."""
_PLACES = ("path", "content", "revision", "device", "threads", "timeout_s", "checkpoint_minutes", "checkpoint_steps", "shard_size", "name")
"""Last parts of settings that say where or how fast, or are labels."""
_ARM = (
    "oracle.name", "oracle.model", "oracle.", "model.template", "source.", "refinement.", "alignment.", "selection.", "rollouts.sampling.n",
    "trainer.max_length",
)  # fmt: skip
"""Settings that make an arm, whole sections where they end in a point; the first ones name it, where they are enough."""
_SHORT = {
    "oracle.name": "oracle", "oracle.model": "oracle", "model.lab.exposure": "exposure", "trainer.batch_size": "batch", "trainer.lr": "lr",
    "problems.name": "problems",
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """A way to make training data (or `base`: none)."""

    label: str
    stream: str
    source: str
    refinement: str
    selection: str
    weight: float | None
    reward: str | None
    """Reward model that the selection reads."""
    oracle: str

    @property
    def kind(self) -> str:
        """base, native, refined, synthesized, aligned, dataset or other: its part in the paper's argument."""
        if self.stream == "base":
            return "base"
        known = {
            ("student", "none"): "native",
            ("student", "refine"): "refined",
            ("student", "style_aligned"): "aligned",
            ("oracle", "none"): "synthesized",
            ("dataset", "none"): "dataset",
        }
        return known.get((self.source, self.refinement), "other")

    @property
    def pool(self) -> tuple[str, str]:
        """What it selects from: the stream, and the Oracle where one is asked."""
        return self.stream, self.oracle if self.refinement != "none" or "oracle" in self.source else ""

    @property
    def selects(self) -> bool:
        """Whether the stream is chosen by anything but chance."""
        return self.selection not in ("", "random")


@dataclass(frozen=True)
class Setting:
    """Training and evaluation settings, seeds aside."""

    key: str
    label: str
    objective: str
    lr: float | None
    batch_size: int | None
    evaluation: str
    """Digest-like text of the evaluation's settings: what must agree for accuracies to be comparable."""


@dataclass(frozen=True)
class Run:
    """One cell in its place."""

    cell: Cell
    student: str
    arm: Arm
    setting: Setting
    replicate: tuple[Any, ...]
    axis: tuple[str, float] | None = None
    """A numeric setting of the student that the study varies, and its value here."""
    family: str = ""
    """The student apart from that setting."""


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path → leaf."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        path = f"{prefix}{name}"
        if isinstance(inner, Mapping) and inner:
            flat |= flatten(inner, f"{path}.")
        else:
            flat[path] = inner
    return flat


def arrange(study: Study) -> list[Run]:
    """Every cell with its student, arm, setting and replicate, in the study's order."""
    flats = varying([flatten(cell.config) for cell in study.cells])
    students = _labels(study.cells, flats, STUDENT, lambda cell: str(cell.get("model.name", "student")))
    settings = [_setting(cell, flat) for cell, flat in zip(study.cells, flats, strict=True)]
    settings = _told_apart(settings, study.cells, flats)
    arms = _arms(study.cells, flats, students)
    axes = _axes(study.cells, flats)
    runs = []
    for cell, flat, student, arm, setting, axis in zip(study.cells, flats, students, arms, settings, axes, strict=True):
        seeds = BASE_SEEDS if cell.is_base else SEEDS
        family, place = axis if axis is not None else (student, None)
        runs.append(Run(cell, student, arm, setting, tuple(flat.get(name) for name in seeds), place, family))
    return runs


def varying(flats: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings in which the cells of a study differ, of each cell; the others can tell nothing apart."""
    paths = dict.fromkeys(path for flat in flats for path in flat)
    told = [path for path in paths if path in SEEDS or len({json.dumps(flat.get(path), sort_keys=True, default=str) for flat in flats}) > 1]
    return [{path: flat.get(path) for path in told} for flat in flats]


def matching_base(run: Run, bases: Sequence[Run]) -> Run | None:
    """The untuned checkpoint that a replicate started from: same student, evaluation and seeds; else any of that student."""
    wanted = tuple(run.cell.get(name) for name in BASE_SEEDS)
    same = [base for base in bases if base.student == run.student and base.setting.evaluation == run.setting.evaluation]
    same = [base for base in same if base.cell.get("model.template") == run.cell.get("model.template")]
    exact = [base for base in same if base.replicate == wanted]
    close = [base for base in same if base.replicate[0] == wanted[0]]
    return (exact or close or [None])[0]  # type: ignore[list-item]


def _counts(path: str) -> bool:
    return path not in SEEDS and path.rpartition(".")[2] not in _PLACES


def _identity(flat: Mapping[str, Any], prefixes: tuple[str, ...], without: tuple[str, ...] = ()) -> str:
    kept = {path: value for path, value in flat.items() if path.startswith(prefixes) and _counts(path) and path not in without}
    return json.dumps(kept, sort_keys=True, default=str)


def _labels(cells: Sequence[Cell], flats: Sequence[Mapping[str, Any]], prefixes: tuple[str, ...], stem: Any) -> list[str]:
    """A label for each cell: its stem, and where one stem stands for several identities, what tells them apart."""
    without = ("model.template",)
    identities = [_identity(flat, prefixes, without) for flat in flats]
    made = []
    for cell, flat in zip(cells, flats, strict=True):
        alike = [other for other_cell, other in zip(cells, flats, strict=True) if stem(other_cell) == stem(cell)]
        label = stem(cell)
        paths = [path for path in flat if path.startswith(prefixes) and _counts(path) and path not in without]
        told = [path for path in paths if len({json.dumps(other.get(path), default=str) for other in alike}) > 1]
        made.append(" ".join([label, *(f"{_short(path)}={brief(flat[path])}" for path in told)]))
    seen: dict[str, dict[str, int]] = {}
    for label, identity in zip(made, identities, strict=True):
        seen.setdefault(label, {}).setdefault(identity, len(seen.get(label, {})))
    return [
        label if seen[label][identity] == 0 else f"{label} #{seen[label][identity] + 1}"
        for label, identity in zip(made, identities, strict=True)
    ]


def _arms(cells: Sequence[Cell], flats: Sequence[Mapping[str, Any]], students: Sequence[str]) -> list[Arm]:
    arms = [_arm(cell) for cell in cells]
    alike: dict[tuple[str, str], list[int]] = {}
    for index, (student, arm) in enumerate(zip(students, arms, strict=True)):
        alike.setdefault((student, arm.label), []).append(index)
    made = list(arms)
    for (student, label), members in alike.items():
        told = _telling([flats[index] for index in members])
        for index in members:
            shown = told
            if cells[index].is_base:
                own = {
                    cell.get("model.template") for cell, name in zip(cells, students, strict=True) if name == student and not cell.is_base
                }
                shown = [path for path in told if path == "model.template" and cells[index].get(path) not in own]
            extras = " ".join(_named(path, flats[index]) for path in shown)
            made[index] = replace(arms[index], label=f"{label} {extras}".strip())
    return made


def _telling(flats: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that tell arms of one name apart: the first in order of _ARM, and no more than it takes."""
    told: list[str] = []
    seen = dict.fromkeys(path for flat in flats for path in flat if path in _settling() and path not in SEEDS)
    order = [path for start in _ARM for path in seen if path == start or (start.endswith(".") and path.startswith(start))]
    for path in dict.fromkeys(order):
        values: dict[str, set[str]] = {}
        for flat in flats:
            known = json.dumps([flat.get(other) for other in told], default=str)
            values.setdefault(known, set()).add(json.dumps(flat.get(path), sort_keys=True, default=str))
        if any(len(found) > 1 for found in values.values()):
            told.append(path)
    return told


@functools.cache
def _settling() -> frozenset[str]:
    """Every setting that changes results."""
    return frozenset(flatten(fields(Config())))


def _named(path: str, flat: Mapping[str, Any]) -> str:
    if path == "source.content":
        return f"path={flat.get('source.path') or flat.get(path)}"
    return f"{_short(path)}={brief(flat.get(path))}"


def _arm(cell: Cell) -> Arm:
    if cell.is_base:
        return Arm("base", "base", "", "", "", None, None, "")
    selection = str(cell.get("selection.name", "random"))
    if selection == "measure":
        selection = str(cell.get("selection.measure"))
    weight = cell.get("selection.weight") if selection == "joint" else None
    reward = cell.get("selection.reward") if selection in ("reward", "joint", "pareto") else None
    source, refinement = str(cell.get("source.name", "")), str(cell.get("refinement.name", ""))
    stream = str(cell.get("stream.name") or f"{source}.{refinement}")
    label = stream if selection == "random" else f"{stream} · {selection}" + (f" λ={brief(weight)}" if weight is not None else "")
    return Arm(label, stream, source, refinement, selection, weight, reward, str(cell.get("oracle.name", "")))


def _setting(cell: Cell, flat: Mapping[str, Any]) -> Setting:
    evaluation = _identity(flat, ("evaluation.",))
    if cell.is_base:
        return Setting(evaluation, "", "", None, None, evaluation)
    trainer = _identity(flat, ("trainer.",))
    objective = str(cell.get("trainer.objective", ""))
    return Setting(trainer + evaluation, objective.upper(), objective, cell.get("trainer.lr"), cell.get("trainer.batch_size"), evaluation)


def _told_apart(settings: list[Setting], cells: Sequence[Cell], flats: Sequence[Mapping[str, Any]]) -> list[Setting]:
    made = []
    for setting, cell, flat in zip(settings, cells, flats, strict=True):
        if cell.is_base:
            made.append(setting)
            continue
        alike = [other for other, same in zip(flats, settings, strict=True) if same.objective == setting.objective]
        paths = [path for path in flat if path.startswith(("trainer.", "evaluation.")) and _counts(path) and path != "trainer.objective"]
        told = [path for path in paths if len({json.dumps(other.get(path), default=str) for other in alike}) > 1]
        extras = " ".join(f"{_short(path)} {brief(flat[path])}" for path in told)
        made.append(replace(setting, label=f"{setting.label} {extras}".strip()))
    return made


def _axes(cells: Sequence[Cell], flats: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[str, float]] | None]:
    """(family, (axis, value)) of each cell: the one numeric setting of the student that varies while all others agree.

    Under one name two values make an axis; students of different names differ by chance or on purpose, so it takes three.
    """
    places = [[path for path in flat if path.startswith(STUDENT) and _counts(path) and _number(flat[path])] for flat in flats]
    found: list[tuple[str, tuple[str, float]] | None] = []
    names = [str(cell.get("model.name", "student")) for cell in cells]
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, (flat, paths) in enumerate(zip(flats, places, strict=True)):
        for path in paths:
            alike.setdefault(_apart_from(flat, path), []).append(index)
    for flat, paths in zip(flats, places, strict=True):
        told = []
        for path in paths:
            members = alike[_apart_from(flat, path)]
            values = {flats[index].get(path) for index in members}
            called = sorted({names[index] for index in members})
            if len(values) >= (FEWEST_STUDENTS if len(called) > 1 else 2):
                told.append((_family(called), (_short(path), float(flat[path]))))
        found.append(told[0] if len(told) == 1 else None)
    return found


def _apart_from(flat: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """What a student is but for one setting; other weights or other problems are another student, whatever they are called."""
    contents = [str(flat.get(name)) for name in ("model.path", "model.content", "problems.content")]
    return path, _identity(flat, STUDENT, ("model.template", path)), *contents


def _family(names: Sequence[str]) -> str:
    """What students are called together: the name, or what their names begin with."""
    if len(names) == 1:
        return names[0]
    ends = next((i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), min(map(len, names)))
    return names[0][:ends].rstrip("_-. 0123456789") or "students"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(path: str) -> str:
    return _SHORT.get(path, path.rpartition(".")[2])


def brief(value: Any) -> str:
    """A setting's value in a label: `5e-5`, not `5e-05`."""
    return re.sub(r"e([+-])0+", r"e\1", f"{value:g}").replace("e+", "e") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Group:
    """The runs of one student under one setting, by arm; what is compared at equal hyper-parameters."""

    student: str
    setting: Setting
    arms: dict[str, list[Run]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.student} · {self.setting.label}" if self.setting.label else self.student


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Trained runs by student and setting, in the study's order."""
    groups: dict[tuple[str, str], Group] = {}
    for run in runs:
        if run.cell.is_base:
            continue
        group = groups.setdefault((run.student, run.setting.key), Group(run.student, run.setting))
        group.arms.setdefault(run.arm.label, []).append(run)
    return list(groups.values())
