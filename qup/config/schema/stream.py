"""Which traces make a stream."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config.schema.choices import SELECTIONS
from qup.config.schema.fields import opt


@dataclass(frozen=True)
class Alignment:
    """The fixed problem set."""

    on_failure: str = opt(
        "drop",
        "a problem for which an arm has no verified trace: dropped from every arm, kept with the wrong answer flagged, or the native trace",
        choices=("drop", "keep_flagged", "native"),
    )


@dataclass(frozen=True)
class Selection:
    """Which of a problem's candidates enters the stream."""

    name: str = opt("random", "the rule", choices=SELECTIONS)
    seed: int | None = opt(None, "seed of the draw")
    reward: str | None = opt(None, "reward model read by reward, joint, pareto")
    measure: str | None = opt(None, "the measure read by measure, and by joint and pareto in place of the NLL; see measure=")
    weight: float = opt(1.0, "λ of joint: weight of the measure's term", at_least=0)
    keep: int = opt(1, "most traces of a problem that enter the stream, the best ones by the rule", at_least=1)
    weights: str = opt(
        "uniform",
        "weights of the examples in the loss: all alike, or χ²-tempered as LARK's, by how far the rule's measure stands above the best trace left out",
        choices=("uniform", "lark"),
    )


@dataclass(frozen=True)
class Stream:
    """A named arm; `source` and `refinement` are what the name stands for."""

    name: str = opt("", "name of the arm; derived where empty")
    source: str = opt("", "the preset's source")
    refinement: str = opt("", "the preset's refinement")
