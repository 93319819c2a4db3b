"""The problems of an evaluation: all benchmarks' in their order."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config.schema import Evaluation
from qup.data.sets import load_benchmark
from qup.errors import InputError


@dataclass(frozen=True)
class Item:
    benchmark: str
    problem_id: str
    question: str
    gold: str
    extraction: str
    """How its answer is read out of a response."""
    dev: bool
    """Kept apart for choosing hyper-parameters."""


def items(evaluation: Evaluation) -> list[Item]:
    """All benchmarks' problems; the first so many of a benchmark named in `evaluation.dev` are kept apart."""
    for name in evaluation.dev:
        if name not in evaluation.benchmarks:
            raise InputError(f"evaluation.dev.{name}: there is no such benchmark; there are {', '.join(evaluation.benchmarks)}")
    found = []
    for name, benchmark in evaluation.benchmarks.items():
        apart = evaluation.dev.get(name, 0)
        for row, problem in enumerate(load_benchmark(name, benchmark).to_pylist()):
            found.append(Item(name, problem["problem_id"], problem["question"], problem["answer"], benchmark.extraction, row < apart))
    if not found:
        raise InputError("evaluation.benchmarks is empty: name at least one benchmark")
    return found
