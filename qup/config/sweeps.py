"""`study.grids` and the sweeps of a command line become one list of overrides a cell."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from qup.config.compose import Composer
from qup.errors import ConfigError, Fault

EXPERIMENT = "experiment"


def expand(composer: Composer, overrides: Sequence[str]) -> list[list[str]]:
    """Overrides of every cell of a multirun, grid keys first, the command line's after them.

    Each grid of `study.grids` is a product of its keys; the grids are united. The command line's sweeps multiply
    every grid, and where it names a key that a grid names too, the grid's key gives way. Each alternative of a sweep
    over experiments brings its own grids. Equal lists are kept once. Raises ConfigError.
    """
    faults: list[Fault] = []
    axes = _axes(composer, overrides, faults)
    if faults:
        raise ConfigError(faults)
    lists: dict[tuple[str, ...], None] = {}
    for experiment in axes.pop(EXPERIMENT, [""]):
        chosen = [experiment] if experiment else []
        fixed = [values[0] for values in axes.values() if len(values) == 1]
        for grid in _grids(composer, chosen, fixed):
            inner = _axes(composer, [f"{key}={_text(value)}" for key, value in grid.items()], faults)
            kept = [values for key, values in inner.items() if _stem(key) not in {_stem(other) for other in axes}]
            for cell in itertools.product(*kept, *axes.values()):
                lists[(*chosen, *cell)] = None
    if faults:
        raise ConfigError(list({str(fault): fault for fault in faults}.values()))
    return [list(cell) for cell in lists]


def _axes(composer: Composer, overrides: Sequence[str], faults: list[Fault]) -> dict[str, list[str]]:
    """Key → its alternatives as overrides; a later override of a key takes the place of an earlier one."""
    axes: dict[str, list[str]] = {}
    for text in overrides:
        one = composer.parse(text)
        if isinstance(one, Fault):
            faults.append(one)
            continue
        key = one.get_key_element()
        axes.pop(key, None)
        if not one.is_sweep_override():
            axes[key] = [text]
        elif one.is_discrete_sweep():
            axes[key] = [f"{key}={value}" for value in one.sweep_string_iterator()]
            if not axes[key]:
                faults.append(Fault(key, one.get_value_string(), "is an empty sweep"))
        else:
            faults.append(Fault(key, one.get_value_string(), "can't be enumerated; a,b,c or range(start,stop,step) can"))
    return axes


def _grids(composer: Composer, chosen: Sequence[str], fixed: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """The grids that an experiment and the fixed overrides set; one empty grid where they set none.

    Where the overrides come to nothing whole, the experiment alone is asked: the cells will tell the faults.
    """
    own = [text for text in fixed if text.lstrip("+").startswith("study.grids")]
    for overrides in ([*chosen, *fixed], [*chosen, *own]):
        cell = composer.draft(overrides).cell
        if cell is not None:
            return cell.study.grids or [{}]
    return [{}]


def _stem(key: str) -> str:
    """A key without + or ~, by which a grid and the command line mean the same."""
    return key.lstrip("+~")


def _text(value: Any) -> str:
    """A value of a grid as written on a command line."""
    return value if isinstance(value, str) else str(Override._get_value_element_as_str(value))
