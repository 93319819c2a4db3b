"""One line for every arm under every setting: all its measures, replicates taken together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qup.analysis.findings.contrasts import Outcomes
from qup.analysis.results.arms import Run
from qup.analysis.results.fitting import Fitting
from qup.analysis.results.outcomes import Outcome, difference
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import Streams, number, perplexity
from qup.analysis.statistics.estimates import SEEDS_FOR_RECIPE, Estimate, bootstrap, coefficients, estimate
from qup.analysis.statistics.means import combined, mean_of, unknown

BOUNDS = (0.0, 100.0)


@dataclass(frozen=True)
class Summary:
    """An arm under a setting; replicates are runs that differ in seeds alone."""

    runs: tuple[Run, ...]
    total: Estimate
    pooled: Estimate
    benchmarks: Mapping[str, Estimate]
    rewards: Mapping[str, Estimate] = field(default_factory=dict)
    """Mean scores over the problems that have one in every arm."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """By reward model: problems without, whichever arm lacks it; summed over replicates."""
    ppl: Estimate = field(default_factory=lambda: unknown("no perplexity"))
    retention: Estimate = field(default_factory=lambda: unknown("not judged"))
    figures: Mapping[str, float] = field(default_factory=dict)
    """Means over replicates of plain figures: rank_surprisal, mean_tokens, ppl_q1, share_truncated, …"""

    @property
    def run(self) -> Run:
        return self.runs[0]

    @property
    def student(self) -> str:
        return self.run.student

    @property
    def arm(self) -> str:
        return self.run.arm.label

    @property
    def setting(self) -> str:
        return self.run.setting.label

    @property
    def evaluated(self) -> bool:
        return math.isfinite(self.total.value)


FIGURES = {
    "stream": ("n", "pool_size", "share_not_random", "share_multi", "n_correct_stream", "n_flagged", "n_native", "mean_chars"),
    "perplexity": ("ppl_q1", "ppl_q2", "ppl_q3", "ppl_q4", "ppl_truncated", "nll", "nll_per_char", "rank_surprisal", "mean_tokens"),
    "train": (
        "n_train", "train_tokens", "steps", "share_truncated", "skipped_steps", "n_dropped", "train_nll_first", "train_nll_last", "useful_tokens",
    ),
}  # fmt: skip


def summaries(runs: Sequence[Run], outcomes: Outcomes, streams: Streams, shelf: Shelf) -> list[Summary]:
    """Arms under settings, in the study's order; base rows among them."""
    grouped: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.student, run.setting.key, run.arm.label), []).append(run)
    utilities = _utilities([_evaluated(members, outcomes) for members in grouped.values()])
    fitting = Fitting.of([run.cell for run in runs], streams)
    return [_summary(members, utility, streams, shelf, fitting) for members, utility in zip(grouped.values(), utilities, strict=True)]


def _evaluated(members: Sequence[Run], outcomes: Outcomes) -> list[Outcome]:
    found = [outcome for run in members if (outcome := outcomes.get(run.cell.label)) is not None and outcome.benchmarks]
    return [outcome for outcome in found if not difference(found[0], outcome)]


@dataclass(frozen=True)
class _Utility:
    total: Estimate
    pooled: Estimate
    benchmarks: dict[str, Estimate]


def _utilities(evaluated: Sequence[Sequence[Outcome]]) -> list[_Utility]:
    """Totals and benchmarks of every arm: bootstrapped together below three seeds, t above."""
    nothing = _Utility(unknown("not evaluated"), unknown("not evaluated"), {})
    made = [nothing] * len(evaluated)
    alike: dict[tuple[tuple[str, tuple[str, ...]], ...], list[int]] = {}
    for index, outcomes in enumerate(evaluated):
        if not outcomes:
            continue
        if len(outcomes) >= SEEDS_FOR_RECIPE:
            made[index] = _over_seeds(outcomes)
        else:
            signature = tuple((name, answers.problem_ids) for name, answers in outcomes[0].benchmarks.items())
            alike.setdefault(signature, []).append(index)
    for signature, members in alike.items():
        names = [name for name, _ in signature]
        columns = [np.stack([_averaged(evaluated[i], name) for i in members], axis=1) for name in names]
        sizes = [len(one) for one in columns]
        totals = bootstrap(columns, coefficients(sizes), bounds=BOUNDS)
        pooled = bootstrap(columns, coefficients(sizes, pooled=True), bounds=BOUNDS)
        single = [bootstrap([one], np.ones(1), bounds=BOUNDS) for one in columns]
        for place, index in enumerate(members):
            made[index] = _Utility(totals[place], pooled[place], {name: single[b][place] for b, name in enumerate(names)})
    return made


def _averaged(outcomes: Sequence[Outcome], name: str) -> np.ndarray:
    return np.mean([outcome.benchmarks[name].share_P for outcome in outcomes], axis=0)


def _over_seeds(outcomes: Sequence[Outcome]) -> _Utility:
    def stacked(name: str) -> np.ndarray:
        return np.stack([outcome.benchmarks[name].share_P for outcome in outcomes], axis=1)

    names = list(outcomes[0].benchmarks)
    strata = [stacked(name) for name in names]
    sizes = [len(one) for one in strata]
    return _Utility(
        estimate(strata, coefficients(sizes), bound=BOUNDS[1]),
        estimate(strata, coefficients(sizes, pooled=True), bound=BOUNDS[1]),
        {name: estimate([one], np.ones(1), bound=BOUNDS[1]) for name, one in zip(names, strata, strict=True)},
    )


def _summary(members: Sequence[Run], utility: _Utility, streams: Streams, shelf: Shelf, fitting: Fitting) -> Summary:
    if members[0].cell.is_base:
        return Summary(tuple(members), utility.total, utility.pooled, utility.benchmarks)
    owners = {found.key: (run.cell, found) for run in members if (found := streams.of(run.cell)) is not None}
    scores = [found for _, found in owners.values()]
    names = list(dict.fromkeys(name for run in members for name in run.cell.stages.get("reward", {})))
    rewards = {name: _together([fitting.mean(cell, found, name) for cell, found in owners.values()]) for name in names}
    left_out = {name: sum(fitting.left_out(cell, name) for cell, _ in owners.values()) for name in names}
    figures: dict[str, float] = {}
    for stage, wanted in FIGURES.items():
        measured = [shelf.metrics(run.cell, stage) for run in members]
        for name in wanted:
            values = [number(metrics.get(name)) for metrics in measured]
            values = [one for one in values if math.isfinite(one)]
            figures[name] = float(np.mean(values)) if values else math.nan
    figures["edit_distance"] = _edit_distance(members, shelf)
    figures["reward_unfit"] = float(sum(sum(one.unfit.values()) for one in scores))
    figures["reward_not_finite"] = float(sum(sum(one.bad_scores.values()) for one in scores))
    return Summary(
        tuple(members), utility.total, utility.pooled, utility.benchmarks, rewards, left_out,
        _together([perplexity(one) for one in scores]), _retention(members, shelf), figures,
    )  # fmt: skip


def _together(estimates: Sequence[Estimate]) -> Estimate:
    known = [one for one in estimates if math.isfinite(one.value)]
    return combined(known) if known else unknown("not measured")


def _edit_distance(members: Sequence[Run], shelf: Shelf) -> float:
    """Mean share of a refinement's tokens that differ from its input; NaN where nothing is refined."""
    values, weights = [], []
    for run in members:
        for pool in run.cell.stages.get("candidates") or {}:
            metrics = shelf.metrics(run.cell, "candidates", pool)
            distance = number(metrics.get("mean_edit_distance"))
            if math.isfinite(distance):
                values.append(distance)
                weights.append(number(metrics.get("n_eligible")))
    return float(np.average(values, weights=weights)) if values and sum(weights) > 0 else math.nan


def _retention(members: Sequence[Run], shelf: Shelf) -> Estimate:
    made = {}
    for run in members:
        artifact = shelf.of(run.cell, "retention")
        table = None if artifact is None else shelf.table(artifact, "retention", ("rating",))
        if artifact is not None and table is not None:
            made[artifact.key] = mean_of(np.asarray(table["rating"], dtype=float))
    return _together(list(made.values()))
