"""Settings reduced to what a stage really reads, so that what cannot matter does not split keys."""

from __future__ import annotations

from dataclasses import replace

from qup.config.measured import READS_REWARD
from qup.config.schema import Benchmark, Evaluation, Refinement, Selection, Source

DEFAULT_SOURCE = Source()
TURN_SETTINGS = ("boundary", "boundary_content", "span_tokens")
FILE_SETTINGS = ("path", "files", "content", "revision", "id", "text", "question", "teacher_column")


def relevant_selection(selection: Selection) -> Selection:
    """A rule that reads no reward model, or no weight, has none; the measure it reads stands beside it in the view."""
    return replace(
        selection,
        reward=selection.reward if selection.name in READS_REWARD else None,
        measure=None,
        weight=selection.weight if selection.name == "joint" else 1.0,
        weights=selection.weights if selection.keep > 1 else "uniform",
    )


def relevant_source(source: Source, pool: str, refinement: str) -> Source:
    """One pool of a source, with only the settings that this pool reads."""
    from_file = pool == "file"
    return Source(
        name=pool,
        samples=source.samples if pool in ("oracle", "cooperative", "file") else DEFAULT_SOURCE.samples,
        **({name: getattr(source, name) for name in TURN_SETTINGS} if pool == "cooperative" else {}),
        **({name: getattr(source, name) for name in FILE_SETTINGS} if from_file else {}),
        cleaning=source.cleaning if pool == "student" and refinement == "none" else "none",
    )


def drawn_evaluation(evaluation: Evaluation) -> Evaluation:
    """What responses to benchmarks depend on: not how their answers are read and compared."""
    neutral, settings = Benchmark(), Evaluation()
    benchmarks = {name: replace(benchmark, extraction=neutral.extraction) for name, benchmark in evaluation.benchmarks.items()}
    return replace(evaluation, benchmarks=benchmarks, timeout_s=settings.timeout_s)


def relevant_refinement(refinement: Refinement, pool: str) -> Refinement:
    """An unrefined arm has no refinement settings, except the retries of an Oracle that solves from scratch."""
    if refinement.name != "none":
        if refinement.accept == "first_correct":
            return replace(refinement, tries=1, margin=0.0, weight=1.0, reward=None)
        if refinement.accept == "perplexity":
            return replace(refinement, weight=1.0, reward=None)
        return refinement
    return Refinement(name="none", retries=refinement.retries if pool in ("oracle", "cooperative") else 0)
