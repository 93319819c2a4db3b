"""The same grid, small, run before the real one, and what it saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qup.config.schema import Config
from qup.pipeline.graph import Ref
from qup.store import Artifact
from qup.study import Study


def rehearsal(cells: Sequence[Config], size: int) -> list[Config]:
    """The same grid on `size` problems and benchmark problems, under a name of its own; it is waited for, here and on SLURM."""
    made = []
    for cell in cells:
        problems = replace(cell.problems, limit=min(size, cell.problems.limit or size))
        if problems.lab is not None:
            problems = replace(problems, lab=replace(problems.lab, n=min(size, problems.lab.n)))
        benchmarks = {
            name: replace(benchmark, limit=min(size, benchmark.limit or size)) for name, benchmark in cell.evaluation.benchmarks.items()
        }
        made.append(
            replace(
                cell,
                problems=problems,
                evaluation=replace(cell.evaluation, benchmarks=benchmarks, dev={}),
                study=replace(cell.study, name=f"{cell.study.name}-rehearsal", rehearse=None, extend=False, wait=True),
            )
        )
    return made


def seen(folder: Path) -> list[str]:
    """A line a stage that a rehearsal ran, in the pipeline's order: what a figure of the whole study would hide until it is paid for."""
    study = Study.load(folder)
    store = study.open_store()
    labels: dict[Ref, str] = {}
    for cell in study.cells:
        for stage in cell.refs():
            labels.setdefault(stage.ref, " ".join(filter(None, (cell.label, stage.name))))
    refs = [ref for cell in study.cells for ref in cell.ordered()]
    lines = []
    for ref in dict.fromkeys(refs):
        artifact = store.get(*ref)
        if artifact is not None and (told := ", ".join(_facts(artifact))):
            lines.append(f"{ref.kind} {labels[ref]}: {told}")
    return lines


def _facts(artifact: Artifact) -> list[str]:
    figure, tell = _TOLD.get(artifact.stage, ("", None))
    if tell is None or figure not in artifact.metrics:
        return []
    told = list(tell(artifact, artifact.metrics))
    if told and (gigabytes := artifact.manifest.get("max_rss_kb", 0) / 1e6):
        told.append(f"{gigabytes:.1f} GB of memory")
    return told


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def _pace(artifact: Artifact, tokens: float) -> str:
    seconds = max(1e-3, artifact.manifest["seconds"] - float(artifact.manifest.get("startup_s") or 0.0))
    return f"{tokens / seconds:,.0f} tokens a second"


def _rollouts(artifact: Artifact, metrics: dict[str, Any]) -> Iterator[str]:
    n = metrics["n_samples"]
    yield f"{n} responses, {_share(metrics['truncated'], n)} cut at the length limit"
    table = artifact.table("rollouts", ["token_ids", "finish"])
    ends = Counter(
        ids[-1] for ids, finish in zip(*(table[name].to_pylist() for name in table.column_names), strict=True) if finish == "stop" and ids
    )
    names = dict(zip(metrics.get("stop_ids", []), metrics.get("stop_tokens", []), strict=False))
    if ends:
        yield "ended by " + " ".join(f"{names.get(token, token)} {count}×" for token, count in ends.most_common())
    yield _pace(artifact, metrics["tokens"])


def _verdicts(artifact: Artifact, metrics: dict[str, Any]) -> Iterator[str]:
    n = metrics["n_samples"]
    yield f"{_share(metrics['correct'], n)} right, {_share(metrics['no_answer'], n)} without an answer, {_share(metrics['undecided'], n)} undecided"


def _responses(artifact: Artifact, metrics: dict[str, Any]) -> Iterator[str]:
    yield f"{metrics['n_responses']} responses, {_share(metrics['truncated'], metrics['n_responses'])} cut at the length limit"
    yield _pace(artifact, metrics["tokens"])


def _train(artifact: Artifact, metrics: dict[str, Any]) -> Iterator[str]:
    yield f"{metrics['n_train']} examples, {metrics['share_truncated']:.0%} cut at trainer.max_length"
    yield _pace(artifact, metrics["train_tokens"])


def _reward(artifact: Artifact, metrics: dict[str, Any]) -> Iterator[str]:
    import pyarrow.compute as pc

    found = pc.min_max(artifact.table("scores", ["score"])["score"].drop_null()).as_py()
    if found["min"] is not None:
        yield f"scores {found['min']:.3g} to {found['max']:.3g}, mean {metrics['mean']:.3g}" if metrics["mean"] is not None else "no score"
    if metrics["n_unfit"]:
        yield f"{metrics['n_unfit']} of {metrics['n']} traces don't fit"


def _asked(artifact: Artifact, metrics: dict[str, Any]) -> Iterator[str]:
    if not metrics.get("attempts"):
        return
    n = metrics["n_problems"] or 1
    yield f"{metrics['attempts'] / n:.2f} requests, {metrics['input_tokens'] / n:,.0f} tokens in, {metrics['output_tokens'] / n:,.0f} out and {metrics['usd'] / n:.4f} dollars a problem"
    yield f"{_share(metrics['n_problems_eligible'], n)} of problems usable"


_TOLD = {
    "rollouts": ("n_samples", _rollouts),
    "verdicts": ("undecided", _verdicts),
    "candidates": ("attempts", _asked),
    "reward": ("n_unfit", _reward),
    "train": ("n_train", _train),
    "responses": ("n_responses", _responses),
}
"""Stage kind → a figure that its manifest has, and what is told of it."""
