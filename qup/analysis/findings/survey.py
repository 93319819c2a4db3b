"""Everything a study says, worked out once: what tables, figures, report and summary are made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from qup.analysis.findings.contrasts import Contrast, adjusted, baseline_of, planned
from qup.analysis.findings.frontier import Frontier, frontiers
from qup.analysis.findings.judged import Judgement, judgements
from qup.analysis.findings.setup import Line, setup
from qup.analysis.findings.summaries import Summary, summaries
from qup.analysis.findings.teachers import Teacher, teachers_of
from qup.analysis.findings.verdict import Finding, Verdict, causal_findings, findings, over_students, verdicts
from qup.analysis.results.arms import Group, Run, arrange, grouped
from qup.analysis.results.browser import browse
from qup.analysis.results.cells import Row, rows_of
from qup.analysis.results.failures import Failure, failures
from qup.analysis.results.mechanism import Curve, Segments, Shift, TokenTable, curve, one_of_each, segments, shift, token_table
from qup.analysis.results.outcomes import Outcome, load_outcome
from qup.analysis.results.provenance import Cost, Loss, Origin, costs, losses, origins, reached
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import Streams, number
from qup.analysis.statistics.correlation import Correlation, spearman
from qup.study import Study

T = TypeVar("T")

MOST_STREAMS = 40
"""Streams whose tokens are looked at."""
SMALL = 50
"""Benchmarks with fewer problems are called small."""


@dataclass(frozen=True)
class Tie:
    """Rank correlation of one measure with the total, across the arms of one group."""

    student: str
    setting: str
    measure: str
    correlation: Correlation


@dataclass(frozen=True)
class AxisPoint:
    """One value of a setting of the student that the study varies."""

    family: str
    setting: str
    axis: str
    x: float
    student: str
    base: Summary | None
    prompted: tuple[Summary, ...]
    solvable: float
    """Problems with a verified rollout, mean over replicates."""
    contrasts: tuple[Contrast, ...]
    """With the baseline."""

    @property
    def detectable(self) -> float:
        """The smallest true difference that every comparison here would have found; NaN where none is known."""
        return max((one.detectable for one in self.contrasts if math.isfinite(one.detectable)), default=math.nan)


@dataclass(frozen=True)
class Survey:
    """A study, analysed."""

    study: Study
    setup: list[Line]
    rows: list[Row]
    runs: list[Run]
    groups: list[Group]
    summaries: list[Summary]
    contrasts: list[Contrast]
    standings: list[Finding]
    """Every arm against the baseline, and every selection against its pool's random one."""
    verdicts: list[Verdict]
    over_students: str
    ties: list[Tie]
    segments: list[Segments]
    tokens: list[TokenTable]
    shifts: list[Shift]
    curves: list[Curve]
    kept_at: list[tuple[str, str, str, tuple[tuple[float, float], ...]]]
    """(student, setting, arm, (share of the run, total) …) of weights kept on the way."""
    frontiers: list[Frontier]
    axis: list[AxisPoint]
    judgements: list[Judgement]
    losses: list[Loss]
    costs: list[Cost]
    origins: list[Origin]
    browser: list[dict[str, Any]]
    faults: list[str]
    failures: list[Failure]
    reward: str
    baseline: str
    margin: float
    toy: bool
    missing: dict[str, list[str]] = field(default_factory=dict)
    """Cell → stages whose results are not there."""
    teachers: dict[str, dict[str, Teacher]] = field(default_factory=dict)
    """By student and name, where streams hold the traces of several."""
    equal: list[tuple[str, ...]] = field(default_factory=list)
    """Streams of one student that hold the same traces."""

    @property
    def students(self) -> list[str]:
        return list(dict.fromkeys(run.student for run in self.runs))

    @property
    def rewards(self) -> list[str]:
        return list(dict.fromkeys(name for one in self.summaries for name in one.rewards))

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(name for one in self.summaries for name in one.benchmarks))

    def of(self, student: str) -> list[Summary]:
        """The arms of one student, base first."""
        mine = [one for one in self.summaries if one.student == student]
        return sorted(mine, key=lambda one: not one.run.cell.is_base)

    def contrast(self, one: Summary, question: str) -> Contrast | None:
        """A summary's comparison with the baseline or with base."""
        place = (one.student, one.run.setting.key, one.arm, question)
        return next((c for c in self.contrasts if (c.student, c.setting_key, c.arm, c.question) == place), None)


def survey(study: Study, shelf: Shelf) -> Survey:
    """Analyses what is in the store; what is missing is listed, never an error."""
    verdict = study.setting("verdict", {}) or {}
    baseline, margin = str(verdict.get("baseline") or "slm_rft"), float(verdict.get("margin") or 1.0)
    rewards = list(study.setting("reward", {}) or {})
    reward = str(verdict.get("reward") or (rewards[0] if rewards else ""))
    runs = arrange(study)
    streams = Streams(shelf)
    outcomes = _outcomes(runs, shelf)
    groups = grouped(runs)
    bases = [run for run in runs if run.cell.is_base]
    contrasts = adjusted(planned(groups, bases, baseline, outcomes), margin)
    summarised = summaries(runs, outcomes, streams, shelf)
    grids = frontiers(groups, summarised, outcomes, shelf, margin)
    within = [one for grid in grids for one in grid.contrasts if one.other == grid.contrasts[0].other]
    standings = findings(groups, [*contrasts, *within], streams, reward, margin)
    made = verdicts(standings, causal_findings(groups, contrasts, streams, margin))
    looked_at = one_of_each(runs, MOST_STREAMS)
    tokens = _there(token_table(run, shelf) for run in looked_at)
    used = reached(study, shelf)
    survey = Survey(
        study=study,
        setup=setup(study, runs, [artifact for artifact, _ in used.values()], shelf),
        rows=rows_of(study, shelf),
        runs=runs,
        groups=groups,
        summaries=summarised,
        contrasts=contrasts,
        standings=standings,
        verdicts=made,
        over_students=over_students(made),
        ties=_ties(groups, summarised),
        segments=_there(segments(run, shelf) for run in looked_at),
        tokens=tokens,
        shifts=_shifts(tokens, baseline),
        curves=_there(curve(run, shelf) for run in runs),
        kept_at=_kept_at(runs, shelf),
        frontiers=grids,
        axis=_axis(runs, summarised, contrasts, shelf),
        judgements=judgements(study, groups, outcomes, shelf),
        losses=losses(runs, outcomes, shelf),
        costs=costs(used),
        origins=origins(used),
        browser=browse(looked_at, streams, shelf, baseline),
        faults=[],
        failures=failures(study, shelf),
        reward=reward,
        baseline=baseline,
        margin=margin,
        toy=any(run.cell.get("model.lab") is not None or run.cell.get("problems.lab") is not None for run in runs),
        missing={run.cell.label: absent for run in runs if (absent := shelf.missing(run.cell))},
        teachers=teachers_of(runs, reward, shelf),
        equal=_equal(runs, shelf),
    )
    survey.faults.extend([*_faults(survey, shelf), *_undecided(outcomes)])
    return survey


def _there(found: Iterable[T | None]) -> list[T]:
    return [one for one in found if one is not None]


def _outcomes(runs: Sequence[Run], shelf: Shelf) -> dict[str, Outcome | None]:
    known: dict[str, Outcome | None] = {}
    made: dict[str, Outcome | None] = {}
    for run in runs:
        artifact = shelf.of(run.cell, "evaluate")
        if artifact is None:
            made[run.cell.label] = None
            continue
        if artifact.key not in known:
            known[artifact.key] = load_outcome(shelf, artifact)
        made[run.cell.label] = known[artifact.key]
    return made


def _ties(groups: Sequence[Group], summarised: Sequence[Summary]) -> list[Tie]:
    made = []
    for group in groups:
        mine = [one for one in summarised if one.student == group.student and one.run.setting.key == group.setting.key and one.evaluated]
        totals = [one.total.value for one in mine]
        measures: dict[str, list[float]] = {}
        for name in dict.fromkeys(name for one in mine for name in one.rewards):
            measures[f"reward ({name})"] = [one.rewards[name].value if name in one.rewards else math.nan for one in mine]
        measures |= {
            "perplexity": [one.ppl.value for one in mine],
            "rank-surprisal ratio": [one.figures.get("rank_surprisal", math.nan) for one in mine],
            "retention": [one.retention.value for one in mine],
            "trace length (a confounder)": [one.figures.get("mean_tokens", math.nan) for one in mine],
        }
        for name, values in measures.items():
            found = spearman(values, totals)
            if found.n >= 2:
                made.append(Tie(group.student, group.setting.label, name, found))
    return made


def _shifts(tokens: Sequence[TokenTable], baseline: str) -> list[Shift]:
    made = []
    for one in tokens:
        lead = next((other for other in tokens if other.student == one.student and other.arm == baseline), None)
        if lead is not None and lead is not one:
            made.append(shift(one, lead))
    return made


def _kept_at(runs: Sequence[Run], shelf: Shelf) -> list[tuple[str, str, str, tuple[tuple[float, float], ...]]]:
    made = []
    for run in runs:
        shares = run.cell.stages.get("evaluate_at") or {}
        points = [(float(share), number(shelf.metrics(run.cell, "evaluate_at", share).get("total"))) for share in shares]
        finite = tuple(sorted(point for point in points if math.isfinite(point[1])))
        if len(finite) > 1:
            made.append((run.student, run.setting.label, run.arm.label, finite))
    return made


def _axis(runs: Sequence[Run], summarised: Sequence[Summary], contrasts: Sequence[Contrast], shelf: Shelf) -> list[AxisPoint]:
    made = []
    places = dict.fromkeys(
        (run.family, run.setting.label, run.setting.key, run.axis, run.student)
        for run in runs
        if run.axis is not None and not run.cell.is_base
    )
    for family, setting, key, axis, student in places:
        assert axis is not None
        mine = [run for run in runs if run.student == student]
        bases = [one for one in summarised if one.student == student and one.run.cell.is_base]
        sizes = [number(shelf.metrics(run.cell, "solvable").get("n_solvable")) for run in mine if not run.cell.is_base]
        sizes = [one for one in sizes if math.isfinite(one)]
        own = tuple(one for one in contrasts if (one.student, one.setting_key) == (student, key) and one.question == "baseline")
        made.append(
            AxisPoint(
                family,
                setting,
                axis[0],
                axis[1],
                student,
                next((one for one in bases if one.arm == "base"), None),
                tuple(one for one in bases if one.arm != "base"),
                sum(sizes) / len(sizes) if sizes else math.nan,
                own,
            )
        )
    order = {key: index for index, key in enumerate(dict.fromkeys((one.family, one.setting) for one in made))}
    return sorted(made, key=lambda one: (order[one.family, one.setting], one.x))


def _equal(runs: Sequence[Run], shelf: Shelf) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for run in one_of_each(runs, len(runs)):
        digest = shelf.metrics(run.cell, "stream").get("traces_digest")
        if digest:
            groups.setdefault((run.student, str(digest)), {})[run.arm.label] = None
    return [tuple(f"{student}: {label}" for label in labels) for (student, _), labels in groups.items() if len(labels) > 1]


def _undecided(outcomes: Mapping[str, Outcome | None]) -> list[str]:
    """How many answers are counted as wrong that may be right."""
    known = list({id(one): one for one in outcomes.values() if one is not None}.values())
    count, of = sum(one.undecided for one in known), sum(one.responses for one in known)
    if not count:
        return []
    most = max(100 * one.undecided / one.responses for one in known)
    return [
        f"{count} of {of} evaluated answers are shown to be neither right nor wrong and count as wrong: {most:.1f} % of an evaluation's at most."
    ]


def _faults(survey: Survey, shelf: Shelf) -> list[str]:
    """What a reader must know before believing the numbers."""
    said = []
    trained = [run for run in survey.runs if not run.cell.is_base]
    if not trained:
        said.append("No cell is trained: there is nothing to compare.")
    for group in survey.groups:
        if not baseline_of(group, survey.baseline):
            said.append(
                f"{group.name}: the baseline {survey.baseline} is not among the arms ({', '.join(group.arms)}), so nothing is compared with it."
            )
        elif len(group.arms) == 1:
            said.append(f"{group.name}: a single arm, so there is nothing to compare it with but the untuned student.")
    for one in survey.contrasts:
        if one.fault and "is evaluated" not in one.fault:
            said.append(f"{one.student}, {one.arm} against {one.other}: not compared, {one.fault}.")
    small = {name: next(one.benchmarks[name].n for one in survey.summaries if name in one.benchmarks) for name in survey.benchmarks}
    few = [f"{name} ({n} problems)" for name, n in small.items() if n < SMALL]
    if few:
        said.append(f"Small benchmarks have wide intervals, which cover 90 % or more in place of 95: {', '.join(few)}.")
    flat = [f"{one.student}, {one.arm} {one.setting}".strip() for one in survey.summaries if "nothing varies" in one.total.method]
    if flat:
        said.append(f"Every problem has the same accuracy, so the interval is an exact binomial bound: {'; '.join(flat)}.")
    for student in survey.students:
        for name in dict.fromkeys(name for one in survey.of(student) for name in one.left_out):
            lost = max(one.left_out.get(name, 0) for one in survey.of(student))
            if lost:
                said.append(
                    f"{student}: mean rewards by {name} leave out {lost} problems in every arm, for some arm's trace of them has no score."
                )
    for arm in survey.summaries:
        count = arm.figures.get("reward_not_finite", 0)
        if count:
            said.append(f"{arm.student}, {arm.arm}: {count:.0f} reward scores are no finite numbers and are left out.")
    said += [f"{ref} cannot be read and counts as missing: {why}." for ref, why in sorted(shelf.corrupt.items())]
    return list(dict.fromkeys(said))
