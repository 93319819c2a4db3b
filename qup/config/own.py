"""Configuration of one's own beside qup's, and what of Hydra's has a meaning here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from qup.config.door import CONF, PRIMARY
from qup.errors import Fault

OWN = "conf"
"""Folder of one's own configuration where one launches; --config-dir names another."""

_WHERE = "qup makes no folder a cell: study.dir and study.name say where a study is shown, store.dir where results live"
_MEANINGLESS = {
    "hydra.run.dir": _WHERE,
    "hydra.sweep.dir": _WHERE,
    "hydra.sweep.subdir": _WHERE,
    "hydra.output_subdir": _WHERE,
    "hydra.job.chdir": "paths and store.dir are meant from where you launch, and stages run in folders of their own; leave it out",
}
"""Settings of Hydra that nothing here reads, and what to do instead."""
GRIDS = "study.grids holds an experiment's sweeps: a list of products, each of which maps keys to a,b,c"


def folder_faults(config_dir: str | None) -> list[Fault]:
    """What is wrong with a folder of one's own: it is not there, or has a file of qup's name, which would not be read."""
    if config_dir is None:
        return []
    folder = Path(config_dir)
    if not folder.is_dir():
        return [Fault("--config-dir", config_dir, "no such directory" if not folder.exists() else "is no directory")]
    return [*_hidden(folder)]


def broken_files(config_dir: str | None) -> list[Fault]:
    """Files of one's own folder that are no YAML, or hold no mapping."""
    return [fault for path in sorted(Path(config_dir).rglob("*.yaml")) for fault in _broken(path)] if config_dir is not None else []


def _broken(path: Path) -> Iterator[Fault]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield Fault(str(path), "", f"not valid YAML: {' '.join(str(error).split())}")
    else:
        if not isinstance(content, dict | None):
            yield Fault(str(path), content, "must hold a mapping, key: value")


def _hidden(folder: Path) -> Iterator[Fault]:
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder)
        theirs = CONF / name
        if theirs.is_file() and theirs.read_bytes() != path.read_bytes():
            if str(name) == f"{PRIMARY}.yaml":
                yield Fault(
                    str(folder), str(name), f"qup has its own {name}, which is read; rename it and choose it by --config-name, or delete it"
                )
            else:
                yield Fault(str(folder), str(name), f"qup has a {name.parent}={name.stem} of its own, which is read; give it another name")


def hydra_faults(overrides: Sequence[str], *, one_cell: bool) -> list[Fault]:
    """Overrides of Hydra's own settings that would be taken and change nothing."""
    given = {key.lstrip("+~"): value for key, _, value in (text.partition("=") for text in overrides)}
    faults = []
    sweeper = given.get("hydra/sweeper", "qup")
    if one_cell and sweeper != "qup":
        faults.append(Fault("hydra/sweeper", sweeper, "sweeps with -m only"))
    for key, value in given.items():
        if key in _MEANINGLESS and (sweeper == "qup" or not key.startswith("hydra.sweep.")):
            faults.append(Fault(key, value, _MEANINGLESS[key]))
        elif sweeper == "qup" and key.startswith("hydra.sweeper.params"):
            faults.append(Fault(key, value, GRIDS))
    return faults
