"""The door between Hydra and typed settings: its loader outside an application, and its configuration made a Config."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import JobRuntime, setup_globals
from omegaconf import DictConfig, OmegaConf

from qup.config.fingerprint import build
from qup.config.mutable import register
from qup.config.schema import Config
from qup.config.settle import Settler, default_study_name
from qup.errors import ConfigError, Fault

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""qup's configuration: inside the package where it is installed, beside it in a checkout."""
PRIMARY = "config"
MANY = ("reward", "measure", "teacher")
"""Groups of which a cell has several."""
SECTIONS = tuple(field.name for field in dataclasses.fields(Config))


def typed(config: DictConfig) -> Config:
    """Hydra's configuration as a frozen Config, nothing settled. Raises ConfigError."""
    job = OmegaConf.masked_copy(config, [name for name in SECTIONS if name in config])
    plain = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    return build(Config, typing.cast(dict[str, Any], plain))


def one_pool(overrides: Sequence[str]) -> list[str]:
    """`oracle=[a,b]` written out as one pool: a teacher by name for each choice, which Hydra would merge one over the other."""
    found = [(text, re.fullmatch(r"oracle=\[([\w/.,\s-]+)\]", text)) for text in overrides]
    named = [
        [f"+oracle@teacher.{name.strip()}={name.strip()}" for name in list_[1].split(",")] if list_ else [text] for text, list_ in found
    ]
    return [text for texts in named for text in texts]


def several_fault(group: str, choices: str) -> Fault:
    """Hydra would merge the files one over the other, and the last would win."""
    return Fault(group, choices, f"one choice a cell; for a grid, -m with {group}={choices.strip('[]').replace(' ', '')}")


def from_hydra(config: DictConfig, hydra: DictConfig | None = None, *, now: datetime | None = None) -> Config:
    """The settled cell of a configuration that Hydra composed. Raises ConfigError.

    `hydra` is Hydra's own node, where the configuration does not hold it.
    """
    hydra = hydra if hydra is not None else config.hydra
    given = [text.partition("=") for text in hydra.overrides.task]
    several = [several_fault(key, value) for key, _, value in given if value.startswith("[") and (CONF / key).is_dir() and key not in MANY]
    if several:
        raise ConfigError(several)
    name = default_study_name([hydra.runtime.choices.get("experiment")], now or datetime.now())
    cell, faults = Settler(name).settle(typed(config))
    if faults:
        raise ConfigError(faults)
    return cell


def stand_alone_loader(conf: Path = CONF, also: str | None = None) -> ConfigLoaderImpl:
    """Hydra's loader outside a Hydra application; `also`: a further folder of configuration, as --config-dir names it."""
    version.setbase("1.3")
    register()
    setup_globals()
    JobRuntime.instance().set("name", "launch")
    path = create_config_search_path(str(conf))
    if also:
        path.prepend("command-line", f"file://{Path(also).absolute()}", anchor="schema")
    return ConfigLoaderImpl(path)
