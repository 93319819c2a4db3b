"""What a selection ranks candidates by, and what a measure reads: settings reduced to what matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qup.config.schema import Config, Measure, Perplexity
from qup.measures import KINDS

READS_REWARD = ("reward", "joint", "pareto")
"""Selections that read a reward model."""
READS_MEASURE = ("perplexity", "rank_surprisal", "measure", "joint", "pareto")
"""Selections that read a measure."""


RANKS_BY_MEASURE = ("measure", "perplexity", "rank_surprisal")
"""Selections whose order is a measure's alone."""


def relevant_measure(measure: Measure) -> Measure:
    """The measure with the settings that its kind does not read left at their defaults."""
    return Measure(measure.kind, **{name: getattr(measure, name) for name in KINDS[measure.kind].reads})


def selected_measure(cell: Config) -> Measure | None:
    """The measure that a cell's selection reads; mean log-probability where joint and pareto name none."""
    selection = cell.selection
    if selection.name == "rank_surprisal":
        return Measure("rank_surprisal")
    if selection.name not in READS_MEASURE:
        return None
    named = cell.measure.get(selection.measure or "") if selection.name != "perplexity" else None
    return relevant_measure(named) if named else Measure("mean_logprob")


def car_reward(measure: Measure, cell: Config) -> str | None:
    """The reward model that a measure of kind car reads: its own, the verdict's, else the first."""
    return measure.reward or cell.verdict.reward or next(iter(cell.reward), None)


def selected_reward(cell: Config) -> str | None:
    """The reward model that a cell's selection reads, by itself or through car."""
    if cell.selection.name in READS_REWARD:
        return cell.selection.reward
    measure = selected_measure(cell)
    return car_reward(measure, cell) if measure is not None and measure.kind == "car" else None


def token_pass(cell: Config) -> Perplexity:
    """Settings of the token pass, which records activations only where a measure reads them."""
    return cell.perplexity if reads_activations(cell.measure) else replace(cell.perplexity, activation=None)


def reads_activations(measures: Mapping[str, Measure]) -> bool:
    """Whether one of these reads the last block's activations."""
    return any(measure.kind == "scas" for measure in measures.values())
