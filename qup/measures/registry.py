"""Which measures there are, and what is known of each without computing it.

A measure is one file here with `values(traces, settings)`, one number a trace. A measure of a set whose number is no
mean over its traces has `parts(traces, settings)` as well, columns whose means over the set `combined` turns into the
number. Modules are named, not imported: a plan asks for facts only.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

Direction = Literal["high", "low"]
STEPS = ("sentences", "lines", "blank_lines")
"""Ways of taking steps, by name in steps.py."""


class Settings(Protocol):
    """What a measure may be told; `qup.config.schema.Measure` has these fields."""

    @property
    def steps(self) -> str: ...
    @property
    def first(self) -> int: ...
    @property
    def brier(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def beta(self) -> float: ...
    @property
    def unit(self) -> str: ...


@dataclass(frozen=True)
class Kind:
    """A measure. `better` says which end suits a learner, by its authors."""

    name: str
    better: Direction
    of: Literal["trace", "set"] = "trace"
    per_trace: bool = True
    """Whether a single trace has a number, so that a selection can read it."""
    needs: Literal["tokens", "windows", "gradients"] = "tokens"
    """What it is computed from: the token pass that perplexity makes, or a pass of its own."""
    reads: tuple[str, ...] = ()
    """The settings that matter to it."""

    @property
    def module(self) -> Any:
        """Its formulas."""
        return import_module(f"qup.measures.{self.name}")


KINDS = {
    kind.name: kind
    for kind in (
        Kind("mean_logprob", "high"),
        Kind("rank_surprisal", "low"),
        Kind("aslec_drop", "high", reads=("steps", "first")),
        Kind("aslec_casl", "high", reads=("steps", "first")),
        Kind("lark", "high", reads=("brier",)),
        Kind("scas", "low", reads=("weight",)),
        Kind("length", "low", reads=("steps", "unit", "better")),
        Kind("car", "high", of="set", reads=("reward", "beta")),
        Kind("lalp", "high", needs="windows", reads=("steps", "window")),
        Kind("grace", "low", of="set", per_trace=False, needs="gradients", reads=("dimensions", "splits", "problems", "seed")),
    )
}


def find(name: str) -> Kind:
    """The measure of that name; KeyError lists the names there are."""
    try:
        return KINDS[name]
    except KeyError:
        raise KeyError(f"measure {name!r}; valid: {', '.join(KINDS)}") from None
