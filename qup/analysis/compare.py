"""Two studies side by side, where they may be compared at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qup.analysis.findings.contrasts import Outcomes, differences, paired
from qup.analysis.findings.numbers import difference as shown_difference
from qup.analysis.findings.numbers import value
from qup.analysis.findings.summaries import Summary, summaries
from qup.analysis.results.arms import Run, arrange, flatten
from qup.analysis.results.outcomes import Outcome, difference, load_outcome
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import Streams
from qup.analysis.statistics.estimates import Estimate, coefficients, estimate
from qup.errors import InputError
from qup.study import Study

if TYPE_CHECKING:
    from rich.console import Console

BENCHMARK_FIELDS = ("content", "revision", "subset", "split", "question", "answer", "gold", "extraction", "limit", "lab")
SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")


@dataclass(frozen=True)
class Pair:
    """One arm that both studies have, under settings of the same name."""

    student: str
    arm: str
    setting: str
    first: Summary
    second: Summary
    difference: Estimate | None
    """First minus second on the same problems."""
    same: bool
    """Both are the same evaluations, bit by bit: nothing was drawn twice, and there is nothing to estimate."""


@dataclass(frozen=True)
class Comparison:
    """What two comparable studies share, and what only one of them has."""

    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    only: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class _Side:
    study: Study
    runs: list[Run]
    outcomes: Outcomes
    summaries: list[Summary]
    shelf: Shelf


def compare(first: Study, second: Study, shelves: tuple[Shelf, Shelf]) -> Comparison:
    """Sets two studies side by side; InputError names every difference that forbids it."""
    faults = differences_of(first, second)
    if faults:
        raise InputError(f"{first.name} and {second.name} can't be compared:\n" + "\n".join(f"  {fault}" for fault in faults))
    sides = _side(first, shelves[0]), _side(second, shelves[1])
    faults = _stored_faults(sides)
    if faults:
        raise InputError(f"{first.name} and {second.name} can't be compared:\n" + "\n".join(f"  {fault}" for fault in faults))
    places: list[dict[tuple[str, str, str], Summary]] = [
        {(one.student, one.arm, _setting(one)): one for one in reversed(side.summaries)} for side in sides
    ]
    shared = [place for place in reversed(places[0]) if place in places[1]]
    pairs = tuple(_pair(sides, place, places[0][place], places[1][place]) for place in shared)
    only = tuple(
        tuple(" ".join(filter(None, place)) for place in reversed(mine) if place not in other) for mine, other in (places, places[::-1])
    )
    return Comparison((first.name, second.name), pairs, (only[0], only[1]))


def _setting(one: Summary) -> str:
    setting = one.run.setting
    return "" if one.run.cell.is_base else f"{setting.objective.upper()} lr {setting.lr:g} batch {setting.batch_size}"


def differences_of(first: Study, second: Study) -> list[str]:
    """Problem sets, templates and benchmarks that differ, as settings say; [] where they agree."""
    faults = []
    for name, read in (("problem sets", _problem_sets), ("templates", _templates)):
        mine, other = read(first), read(second)
        if mine.keys() & other.keys():
            for model in sorted(mine.keys() & other.keys()):
                if mine[model] != other[model]:
                    faults.append(f"{name} differ for {model}: {_listed(mine[model])} against {_listed(other[model])}")
        elif name == "problem sets" and set().union(*mine.values()) != set().union(*other.values()):
            faults.append(f"{name} differ: {_listed(set().union(*mine.values()))} against {_listed(set().union(*other.values()))}")
    drawn, drawn_other = _benchmarks(first), _benchmarks(second)
    only = sorted(drawn.keys() ^ drawn_other.keys())
    if only:
        faults.append(f"benchmarks differ: {', '.join(only)} in one of them only")
    for name in sorted(drawn.keys() & drawn_other.keys()):
        faults += _changed(f"benchmark {name} differs", drawn[name], drawn_other[name], BENCHMARK_FIELDS)
    sampling, sampling_other = first.setting("evaluation.sampling", {}), second.setting("evaluation.sampling", {})
    return faults + _changed("evaluation.sampling differs", sampling, sampling_other, SAMPLING_FIELDS)


def _changed(what: str, first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    mine, other = (flatten({name: one.get(name) for name in names}) for one in (first, second))
    changed = [name for name in dict.fromkeys([*mine, *other]) if mine.get(name) != other.get(name)]
    told = ", ".join(f"{name} {mine.get(name)!r} against {other.get(name)!r}" for name in changed)
    return [f"{what}: {told}"] if changed else []


def _problem_sets(study: Study) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for cell in study.cells:
        parts = [
            cell.get("problems.name"),
            cell.get("problems.content"),
            cell.get("problems.limit"),
            cell.get("problems.lab"),
            cell.get("problems.decontamination"),
        ]
        found.setdefault(str(cell.get("model.name")), set()).add(" ".join(str(part) for part in parts if part not in (None, "")))
    return found


def _templates(study: Study) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for cell in study.cells:
        found.setdefault(str(cell.get("model.name")), set()).add(str(cell.get("model.template")))
    return found


def _benchmarks(study: Study) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for cell in study.cells:
        for name, benchmark in (cell.get("evaluation.benchmarks") or {}).items():
            found.setdefault(name, benchmark)
    return found


def _listed(values: set[str]) -> str:
    return "; ".join(sorted(values)) or "none"


def _side(study: Study, shelf: Shelf) -> _Side:
    runs = arrange(study)
    outcomes: dict[str, Outcome | None] = {}
    for run in runs:
        artifact = shelf.of(run.cell, "evaluate")
        outcomes[run.cell.label] = load_outcome(shelf, artifact) if artifact is not None else None
    return _Side(study, runs, outcomes, summaries(runs, outcomes, Streams(shelf), shelf), shelf)


def _stored_faults(sides: tuple[_Side, _Side]) -> list[str]:
    """What the results themselves say against a comparison: problems of the benchmarks, fixed problem sets, prompts."""
    faults = []
    found = [next((one for one in side.outcomes.values() if one is not None), None) for side in sides]
    if found[0] is not None and found[1] is not None and (fault := difference(found[0], found[1])):
        faults.append(f"evaluation: {fault}")
    for student in [run.student for run in sides[0].runs if not run.cell.is_base]:
        mine, other = (_fixed_set(side, student) for side in sides)
        if mine is not None and other is not None and mine != other:
            odd = sorted(mine ^ other)
            listed = ", ".join(odd[:5]) + (", …" if len(odd) > 5 else "")
            faults.append(
                f"fixed problem sets differ for {student}: {len(mine)} problems against {len(other)}; {len(odd)} are in one of them only ({listed})"
            )
        hashes = [_template_hashes(side, student) for side in sides]
        faults += [
            f"prompts differ for {student} under template {name}: hash {hashes[0][name][:12]} against {hashes[1][name][:12]}"
            for name in hashes[0]
            if name in hashes[1] and hashes[0][name] != hashes[1][name]
        ]
    return list(dict.fromkeys(faults))


def _fixed_set(side: _Side, student: str) -> set[str] | None:
    """The problems that all streams of a student cover; None where no stream is stored."""
    for run in side.runs:
        artifact = side.shelf.of(run.cell, "stream") if run.student == student else None
        table = side.shelf.table(artifact, "stream", ("problem_id",)) if artifact is not None else None
        if table is not None:
            return set(table["problem_id"].to_pylist())
    return None


def _template_hashes(side: _Side, student: str) -> dict[str, str]:
    """Template name → hash of the prompt that evaluations recorded."""
    found: dict[str, str] = {}
    for run in side.runs:
        if run.student == student:
            recorded = side.shelf.metrics(run.cell, "evaluate").get("template_hash")
            if recorded:
                found.setdefault(str(run.cell.get("model.template")), str(recorded))
    return found


def _pair(sides: tuple[_Side, _Side], place: tuple[str, str, str], first: Summary, second: Summary) -> Pair:
    mine, other = (_digests(side, one) for side, one in zip(sides, (first, second), strict=True))
    return Pair(*place, first, second, _paired(sides, first, second), bool(mine) and mine == other)


def _digests(side: _Side, one: Summary) -> list[str]:
    """Digests of an arm's evaluations; none where one is missing."""
    found = [side.shelf.of(run.cell, "evaluate") for run in one.runs]
    known = [artifact.digest for artifact in found if artifact is not None]
    return sorted(known) if len(known) == len(found) else []


def _paired(sides: tuple[_Side, _Side], first: Summary, second: Summary) -> Estimate | None:
    """Paired by replicate where both have the same seeds, else the first replicates."""
    labelled = {f"0/{run.cell.label}": sides[0].outcomes.get(run.cell.label) for run in first.runs}
    labelled |= {f"1/{run.cell.label}": sides[1].outcomes.get(run.cell.label) for run in second.runs}
    mine, other = _relabelled(first.runs, "0"), _relabelled(second.runs, "1")
    pairs = [] if mine[0].cell.is_base else paired(mine, other, labelled)
    if not pairs:
        found = [labelled[mine[0].cell.label], labelled[other[0].cell.label]]
        pairs = [(found[0], found[1])] if found[0] is not None and found[1] is not None else []
    apart = differences(pairs)
    if isinstance(apart, str):
        return None
    strata = list(apart.strata.values())
    return estimate(strata, coefficients([len(values_PM) for values_PM in strata]), bound=100.0)


def _relabelled(runs: tuple[Run, ...], side: str) -> list[Run]:
    from dataclasses import replace

    return [replace(run, cell=replace(run.cell, label=f"{side}/{run.cell.label}")) for run in runs]


def show_comparison(first: Path, second: Path, console: Console) -> int:
    """Prints two studies side by side; InputError where they can't be compared."""
    from rich.table import Table

    studies = Study.load(first), Study.load(second)
    found = compare(*studies, (Shelf(studies[0].open_store()), Shelf(studies[1].open_store())))
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("student", "arm", "loss"):
        table.add_column(name)
    for name in (*found.names, "difference [95 %]"):
        table.add_column(name, justify="right")
    for pair in found.pairs:
        table.add_row(
            pair.student,
            pair.arm,
            pair.setting,
            value(pair.first.total, 1),
            value(pair.second.total, 1),
            "the same results" if pair.same else shown_difference(pair.difference, 1),
        )
    console.print(table)
    for name, only in zip(found.names, found.only, strict=True):
        if only:
            console.print(f"only in {name}: {', '.join(only)}", markup=False)
    console.print("differences are paired on the same problems, first minus second, without correction for looking at many", style="dim")
    return 0
