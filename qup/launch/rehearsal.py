"""The same grid, small, run before the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qup.config.schema import Config


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
