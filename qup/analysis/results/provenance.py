"""Where every number comes from, what it cost, and what was lost on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qup.analysis.results.arms import Run
from qup.analysis.results.outcomes import Outcome
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import number
from qup.pipeline import KINDS
from qup.store import Artifact
from qup.study import Study

UNDECIDED = "answers whose equality is undecided (counted wrong)"
CLAMPED = "prompts that leave less of the context than the length limit"


@dataclass(frozen=True)
class Origin:
    """One stored result and what made it."""

    stage: str
    key: str
    digest: str
    code: str
    host: str
    seconds: float
    finished: float
    """Seconds since 1970; NaN where the manifest does not say."""
    gpus: float
    usd: float
    bytes: int
    study: str
    adopted_from: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """What a stage kind took, over all its results used here."""

    stage: str
    results: int
    gpu_hours: float
    hours: float
    usd: float
    oracle_requests: int
    input_tokens: int
    output_tokens: int
    bytes: int


def reached(study: Study, shelf: Shelf) -> dict[tuple[str, str], tuple[Artifact, tuple[str, ...]]]:
    """Every stored result a study rests on, through the inputs of manifests, with the cells that use it."""
    found: dict[tuple[str, str], tuple[Artifact, list[str]]] = {}
    for cell in study.cells:
        open_refs = [(kind, key) for _, kind, _, key in cell.refs()]
        done: set[tuple[str, str]] = set()
        while open_refs:
            ref = open_refs.pop()
            if ref in done:
                continue
            done.add(ref)
            artifact = shelf.get(*ref)
            if artifact is None:
                continue
            found.setdefault(ref, (artifact, []))[1].append(cell.label)
            for entry in (artifact.manifest.get("inputs") or {}).values():
                if isinstance(entry, Mapping) and entry.get("stage") and entry.get("key"):
                    open_refs.append((str(entry["stage"]), str(entry["key"])))
    place = {stage: index for index, stage in enumerate(KINDS)}
    ordered = sorted(found, key=lambda ref: (place.get(ref[0], len(KINDS)), ref[1]))
    return {ref: (found[ref][0], tuple(found[ref][1])) for ref in ordered}


def origins(used: Mapping[tuple[str, str], tuple[Artifact, tuple[str, ...]]]) -> list[Origin]:
    """One line a stored result."""
    made = []
    for (stage, key), (artifact, cells) in used.items():
        manifest = artifact.manifest
        made.append(
            Origin(
                stage,
                key,
                str(manifest.get("digest", "")),
                str(manifest.get("code", "")),
                str(manifest.get("host", "")),
                _zero(manifest.get("seconds")),
                number(manifest.get("finished")),
                gpus_of(manifest),
                _usd(artifact),
                artifact.size,
                str(manifest.get("study", "")),
                str(manifest.get("adopted_from") or ""),
                cells,
            )
        )
    return made


def costs(used: Mapping[tuple[str, str], tuple[Artifact, tuple[str, ...]]]) -> list[Cost]:
    """Sums by stage kind; what was adopted from an equal result cost nothing again."""
    made: dict[str, list[Artifact]] = {}
    for (stage, _), (artifact, _) in used.items():
        made.setdefault(stage, []).append(artifact)
    lines = []
    for stage, artifacts in made.items():
        own = [artifact for artifact in artifacts if not artifact.manifest.get("adopted_from")]
        spent = [artifact.metrics.get("spent") or {} for artifact in own]
        lines.append(
            Cost(
                stage,
                len(artifacts),
                sum(_zero(artifact.manifest.get("seconds")) * gpus_of(artifact.manifest) for artifact in own) / 3600,
                sum(_zero(artifact.manifest.get("seconds")) for artifact in own) / 3600,
                sum(_usd(artifact) for artifact in own),
                int(sum(_zero(one.get("requests")) for one in spent)),
                int(sum(_zero(one.get("input_tokens")) for one in spent)),
                int(sum(_zero(one.get("output_tokens")) for one in spent)),
                sum(artifact.size for artifact in artifacts),
            )
        )
    return lines


def _zero(value: Any) -> float:
    found = number(value)
    return found if found == found else 0.0


def gpus_of(manifest: Mapping[str, Any]) -> float:
    asked = str(manifest.get("gpus", 0) or 0).rpartition(":")[2]
    return float(asked) if asked.isdigit() else 0.0


def _usd(artifact: Artifact) -> float:
    spent = artifact.metrics.get("spent")
    return _zero(spent.get("usd")) if isinstance(spent, Mapping) else _zero(artifact.metrics.get("usd"))


@dataclass(frozen=True)
class Loss:
    """Something that was dropped, cut, retried or stood in for."""

    where: str
    what: str
    count: float
    of: float
    note: str = ""

    @property
    def share(self) -> float:
        return self.count / self.of if self.of else 0.0


def losses(runs: Sequence[Run], outcomes: Mapping[str, Outcome | None], shelf: Shelf) -> list[Loss]:
    """Everything counted by the stages, once for each result; replicates of one place are added up."""
    made: list[Loss] = []
    seen: set[tuple[str, str]] = set()
    for run in runs:
        cell = run.cell
        for _, kind, name, key in cell.refs():
            artifact = shelf.get(kind, key)
            if artifact is None or (kind, key) in seen:
                continue
            seen.add((kind, key))
            where = _place(run, kind, name)
            made += _of_stage(kind, where, artifact.metrics)
        outcome = outcomes.get(cell.label)
        if outcome is not None:
            n = float(outcome.responses)
            made += [
                Loss(f"evaluation of {cell.label}", "responses cut at the length limit", outcome.truncated, n),
                Loss(f"evaluation of {cell.label}", "symbolic comparisons that ran out of time (counted wrong)", outcome.timeouts, n),
                Loss(f"evaluation of {cell.label}", UNDECIDED, outcome.undecided, n),
                Loss(f"evaluation of {cell.label}", "responses without a readable answer", outcome.no_answer, n),
            ]
    return _added(one for one in made if one.count > 0)


def _added(found: Iterable[Loss]) -> list[Loss]:
    together: dict[tuple[str, str], Loss] = {}
    for one in found:
        place = (one.where, one.what)
        known = together.get(place)
        if known is None:
            together[place] = one
        else:
            notes = "; ".join(dict.fromkeys(filter(None, (known.note, one.note))))
            together[place] = replace(known, count=known.count + one.count, of=known.of + one.of, note=notes)
    return list(together.values())


def _place(run: Run, kind: str, name: str) -> str:
    if kind in ("problems", "student", "rollouts", "verdicts", "solvable", "aligned", "ranking"):
        return f"{kind} of {run.student}"
    if kind in ("candidates", "accept"):
        return f"candidates {name}.{run.arm.refinement} of {run.student}"
    return f"{kind}{f' {name}' if name else ''} of {run.student}, {run.arm.label}" + (f", {run.setting.label}" if kind == "train" else "")


_COUNTED = {
    "problems": (
        ("problems excluded for want of a gold answer", "excluded_no_gold", "n_loaded"),
        ("problems removed because a benchmark holds them", "removed", "n_loaded"),
    ),
    "rollouts": (
        ("rollouts cut at the length limit", "truncated", "n_samples"),
        ("empty rollouts", "empty", "n_samples"),
        (CLAMPED, "clamped", "n_problems"),
        ("problems without room for a response (problems.too_long=exclude)", "n_too_long", "n_problems"),
    ),
    "verdicts": (
        ("right rollouts cut at the length limit (in no stream)", "correct_cut_off", "n_samples"),
        ("rollouts without a readable answer", "no_answer", "n_samples"),
        ("symbolic comparisons that ran out of time (counted wrong)", "timeouts", "n_samples"),
        (UNDECIDED, "undecided", "n_samples"),
    ),
    "stream": (
        ("wrong traces kept and flagged", "n_flagged", "n"),
        ("native traces standing in", "n_native", "n"),
        ("candidates without a score", "n_unscored", "n"),
    ),
    "reward": (
        ("traces too long for the reward model (no score)", "n_unfit", "n"),
        ("scores that are no finite number (left out)", "n_invalid", "n"),
    ),
    "perplexity": (("empty traces", "n_empty", "n"), ("traces longer than training's limit", "n_truncated", "n")),
    "train": (
        ("examples with nothing left to learn", "n_dropped", "n_train"),
        ("steps skipped for a non-finite gradient", "skipped_steps", "steps"),
    ),
}
"""By stage kind: what was lost, the count of it, and of how many."""


def _of_stage(kind: str, where: str, metrics: Mapping[str, Any]) -> list[Loss]:
    def loss(what: str, count: float, of: float, note: str = "") -> Loss:
        return Loss(where, what, count, of, note)

    def told(name: str) -> float:
        return _zero(metrics.get(name))

    made = [loss(what, told(count), told(of)) for what, count, of in _COUNTED.get(kind, ())]
    match kind:
        case "problems" if not metrics.get("removed"):
            overlap = (metrics.get("overlap") or {}).items()
            held = "problems that {} holds too (kept: decontamination is off)"
            made += [loss(held.format(name), _zero(found.get("exact")), told("n_loaded")) for name, found in overlap]
        case "solvable":
            made = [loss("problems that the student never solved", told("n_problems") - told("n_solvable"), told("n_problems"))]
        case "candidates" | "accept":
            made = _of_candidates(where, metrics)
        case "aligned":
            alone = metrics.get("lost_alone") or {}
            for arm, count in (metrics.get("lost") or {}).items():
                note = f"{alone.get(arm, 0)} lost by this arm alone"
                made.append(loss(f"problems without a verified trace in {arm}", _zero(count), told("n_solvable"), note))
            note = ""
            if metrics.get("solve_rate_dropped") is not None:
                note = f"their solve rate is {told('solve_rate_dropped'):.2f}, of the kept ones {told('solve_rate_kept'):.2f}"
            made.append(loss("problems dropped from every stream", told("n_dropped"), told("n_solvable"), note))
        case "retention" | "ranking":
            made = [loss("ratings that the judge did not give", told("n_failed"), told("n") + told("n_failed"))]
        case "train":
            made.insert(0, loss("examples cut at the length limit", told("share_truncated") * told("n_train"), told("n_train")))
        case "evaluate":
            solved = [*(metrics.get("benchmarks") or {}).values(), *(metrics.get("dev") or {}).values()]
            made = [loss(CLAMPED, told("clamped"), sum(_zero(one.get("n")) for one in solved))]
    return made


def _of_candidates(where: str, metrics: Mapping[str, Any]) -> list[Loss]:
    spent = metrics.get("spent") or {}
    verdicts = {name: value for name, value in (metrics.get("verdicts") or {}).items() if name not in ("equal", "symbolic")}
    failures, cleaning = metrics.get("failures") or {}, metrics.get("cleaning") or {}
    return [
        Loss(where, "candidates that failed their checks", _sum(verdicts), _zero(metrics.get("n")), _listed(verdicts)),
        Loss(
            where, "Oracle answers not accepted, asked again or given up", _sum(failures), _zero(metrics.get("attempts")), _listed(failures)
        ),
        Loss(
            where, "Oracle answers with talk around the solution, taken away", _zero(metrics.get("prose")), _zero(metrics.get("attempts"))
        ),
        Loss(where, "traces cleaned, by rule", _sum(cleaning), _zero(metrics.get("n_eligible")), _listed(cleaning)),
        Loss(where, "Oracle requests sent again", _zero(spent.get("retries")), _zero(spent.get("requests"))),
    ]


def _sum(counts: Mapping[str, Any]) -> float:
    return sum(_zero(value) for value in counts.values())


def _listed(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in counts.items() if value)
