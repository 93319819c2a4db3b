"""The embedded world's settings: its problems, students, Oracle and reward models."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config.schema.fields import opt


@dataclass(frozen=True)
class LabProblems:
    """The generator of the embedded world's word problems."""

    n: int = opt(400, "how many problems", at_least=1)
    seed: int = opt(1, "seed of the generator; benchmarks use others, and share no problem with it")
    min_steps: int = opt(2, "fewest reasoning steps", at_least=1, at_most=6)
    max_steps: int = opt(3, "most reasoning steps", at_least=1, at_most=6)
    max_value: int = opt(50, "no intermediate result exceeds this", at_least=20, at_most=50)


@dataclass(frozen=True)
class LabStudent:
    """A student pretrained inside the lab."""

    exposure: float = opt(0.1, "share of pretraining traces written in the Oracle's styles", at_least=0, at_most=1)
    seed: int = opt(0, "seed of initial weights and pretraining data")
    steps: int = opt(1200, "length of pretraining, in optimizer steps of 100-token traces; other exposures get as many tokens", at_least=1)
    batch_size: int = opt(8, "traces a pretraining step", at_least=1)
    hidden: int = opt(64, "hidden size", at_least=8)
    layers: int = opt(4, "number of layers", at_least=1)
    heads: int = opt(2, "attention heads", at_least=1)
    noise: float = opt(0.05, "share of pretraining traces with a slip in them", at_least=0, at_most=1)


@dataclass(frozen=True)
class LabOracle:
    """How the programmed Oracle behaves."""

    error_rate: float = opt(0.05, "share of its answers that are wrong at the first attempt", at_least=0, at_most=1)
    refuse_rate: float = opt(0.01, "share of its answers that are refusals", at_least=0, at_most=1)
    latency_s: float = opt(0.0, "seconds it takes to answer", at_least=0, runtime=True)
    style: str = opt("symbolic", "how it writes where it solves from scratch", choices=("native", "sequential", "symbolic", "textbook"))
    grain: str = opt(
        "steps",
        "what it tells of its steps: each, each in halves (`a * 3` as two sums, a large operand in two), or the last alone",
        choices=("steps", "fine", "coarse"),
    )
    result_first: bool = opt(False, "it tells the result before the steps")
    chatter: float = opt(
        1.0, "fillers, second looks and restarts of style native, as a multiple of the student's own", at_least=0, at_most=8
    )
    slip_rate: float = opt(0.0, "share of its right answers in which one told result is untrue all the same", at_least=0, at_most=1)


@dataclass(frozen=True)
class LabReward:
    """The lab's reward models: a trained outcome model, or a stated step checker."""

    kind: str = opt(
        "outcome",
        "outcome: a small network trained on labelled traces; steps: a rule that parses `a op b = r`",
        choices=("outcome", "steps"),
    )
    seed: int = opt(0, "seed of its training")
    traces: int = opt(12000, "labelled traces it is trained on", at_least=10)
    steps: int = opt(1200, "pretraining of the language model that it starts from, in steps of 8 traces of 100 tokens", at_least=1)
