"""Short names of cells: model/stream/objective, and then whatever tells two apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qup.config.fingerprint import plain
from qup.config.schema import Config

APART = 3
"""Most settings that a label tells two cells apart by, beyond those of `_DIMENSIONS`."""

_DIMENSIONS: dict[str, Callable[[Config], object]] = {
    "oracle": lambda cell: cell.oracle.name,
    "source": lambda cell: cell.source.name,
    "teacher": lambda cell: cell.source.teacher or "+".join(cell.teacher),
    "refinement": lambda cell: cell.refinement.name,
    "selection": lambda cell: cell.selection.name,
    "reward": lambda cell: cell.selection.reward,
    "measure": lambda cell: cell.selection.measure,
    "weight": lambda cell: cell.selection.weight,
    "lr": lambda cell: cell.trainer.lr,
    "batch": lambda cell: cell.trainer.batch_size,
    "epochs": lambda cell: cell.trainer.epochs,
    "seed": lambda cell: cell.trainer.seed,
    "eval_seed": lambda cell: cell.evaluation.sampling.seed,
    "selection_seed": lambda cell: cell.selection.seed,
    "rollouts_seed": lambda cell: cell.rollouts.sampling.seed,
    "on_failure": lambda cell: cell.alignment.on_failure,
    "cleaning": lambda cell: cell.source.cleaning,
    "tries": lambda cell: cell.refinement.tries,
    "accept": lambda cell: cell.refinement.accept,
    "problems": lambda cell: cell.problems.name,
    "template": lambda cell: cell.model.template,
    "exposure": lambda cell: cell.model.lab.exposure if cell.model.lab else None,
    "student_seed": lambda cell: cell.model.lab.seed if cell.model.lab else None,
}


def _stem(cell: Config) -> str:
    stem = f"{cell.model.name}/{cell.stream.name}"
    return stem if cell.stream.name == "base" else f"{stem}/{cell.trainer.objective}"


def cell_labels(cells: Sequence[Config]) -> list[str]:
    """One label a cell; equal settings within a study are left out.

    Of cells that are still equal the first keeps the label, the others say what tells them from it, or are numbered.
    """
    varying = [name for name, read in _DIMENSIONS.items() if len({read(cell) for cell in cells}) > 1]
    groups: dict[str, list[int]] = {}
    stems = [_stem(cell) for cell in cells]
    for index, stem in enumerate(stems):
        groups.setdefault(stem, []).append(index)
    labels = [""] * len(cells)
    for stem, members in groups.items():
        told = [name for name in varying if len({_DIMENSIONS[name](cells[i]) for i in members}) > 1]
        seen: dict[str, list[int]] = {}
        for i in members:
            label = "/".join([stem, *(f"{name}={_DIMENSIONS[name](cells[i])}" for name in told)])
            same = seen.setdefault(label, [])
            same.append(i)
            labels[i] = label if len(same) == 1 else f"{label}{_apart(cells[same[0]], cells[i]) or f'#{len(same)}'}"
    return labels


def _apart(first: Config, cell: Config) -> str:
    """`/key=value` for each setting in which a cell differs from another; "" where these are none, many or long."""
    one, other = dict(_leaves(plain(first))), dict(_leaves(plain(cell)))
    told = "".join(f"/{key}={value}" for key, value in other.items() if one.get(key) != value)
    return told if 0 < told.count("=") <= APART and len(told) <= 100 else ""


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{at}.{name}" if at else name)
    else:
        yield at, value
