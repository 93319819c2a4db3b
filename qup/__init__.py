"""qup: find out which data recipe teaches a small language model best."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from qup.notebook import OpenStudy

__version__ = "0.2.0"


def open(study: str | PathLike[str], dir: str | PathLike[str] = "multirun") -> OpenStudy:
    """A launched study, by its name under `dir` (study.dir of the launch) or by its own folder; InputError where there is none."""
    from qup.notebook import OpenStudy  # importing qup takes no time

    return OpenStudy.find(study, dir)
