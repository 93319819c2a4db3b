"""`qup launch --cfg job`: every setting of one cell with its value, as it would run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from qup.config.compose import Composer
from qup.config.fingerprint import plain
from qup.config.keys import one_of
from qup.errors import ConfigError, Fault


def show_cell(composer: Composer, overrides: Sequence[str], package: str | None) -> None:
    """Prints the cell that these overrides come to, arm, seeds and study's name settled, or the part of it that `package` names.

    Hydra would print what its defaults list comes to, where a choice that is replaced leaves behind what an experiment
    changed of it. Raises ConfigError where there is no such cell or part; whether the cell could run is not judged.
    """
    (draft,) = composer.gather([overrides], one_cell=True)
    if draft.cell is None or draft.faults:
        raise ConfigError(list(draft.faults))
    shown: Any = plain(draft.cell)
    for name in package.split(".") if package and package != "_global_" else []:
        if not isinstance(shown, Mapping) or name not in shown:
            there = list(shown) if isinstance(shown, Mapping) else []
            raise ConfigError([Fault("--package", package, one_of(name, there) if there else "is a value and holds nothing")])
        shown = shown[name]
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    sys.stdout.write(yaml.dump(shown, Dumper=dumper, sort_keys=False, allow_unicode=True, width=200))
