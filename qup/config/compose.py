"""Overrides become cells: Hydra's composition, typed at the door, with all faults of a grid told together.

`Composer.grid` gives what Hydra would give for each list of overrides, but computes each defaults list once for a
distinct tuple of group choices, each section once for a distinct tuple of files, and each conversion of a value
once. It uses Hydra's own parser, defaults list, loader and merges, some of them private to hydra-core 1.3.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import create_defaults_list, update_package_header
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qup.config.door import CONF, MANY, PRIMARY, SECTIONS, from_hydra, one_pool, several_fault, stand_alone_loader, typed
from qup.config.keys import counted, one_of
from qup.config.mutable import register
from qup.config.once import Once
from qup.config.schema import Config
from qup.config.sections import BROKEN, Piece, Section, lost_entries, merge, misplaced, override, without
from qup.config.settle import Settler, default_study_name
from qup.errors import ConfigError, Fault

ONE_CELL = "-cell"
"""Behind the name of an experiment with a grid, where one cell of it is launched: the grid keeps the name."""


Origin = tuple[str, str | None]
"""A file of conf/ and the package that it is put at."""


@dataclass(frozen=True)
class Draft:
    """A cell as composed, and what is wrong with its overrides."""

    cell: Config | None
    """What the sound overrides come to; None where that is nothing whole."""
    experiment: str | None = None
    faults: tuple[Fault, ...] = ()
    chosen: bool = True
    """False where the choice of a group is unknown, so that its settings can't be judged against each other."""


@dataclass(frozen=True)
class _Base:
    """What a tuple of group choices comes to."""

    sections: dict[str, Section]
    experiment: str | None
    faults: tuple[Fault, ...]

    def whole(self) -> DictConfig:
        """All sections under one root, in which they may refer to each other."""
        root = OmegaConf.create({})
        for name, section in self.sections.items():
            root._set_item_impl(name, copy.deepcopy(section.root)._get_node(name))
        OmegaConf.set_struct(root, True)
        return root


class Composer:
    """Composes cells over one search path."""

    def __init__(self, loader: ConfigLoader, hydra_overrides: Sequence[str] = (), *, primary: str = PRIMARY) -> None:
        """`hydra_overrides`: those of the command line that begin with hydra; of them only hydra.searchpath matters here.

        `primary` is the file that composition starts from, as --config-name names it.
        """
        assert isinstance(loader, ConfigLoaderImpl)
        register()
        self._loader = loader
        self._hydra = [text for text in hydra_overrides if text.lstrip("+").startswith("hydra.searchpath=")]
        self._primary = primary
        _, self._repo = loader._parse_overrides_and_create_caching_repo(primary, self._hydra)
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override | Fault] = {}
        self._groups: dict[str, bool] = {}
        self._there: dict[str, bool] = {}
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._shapes: dict[tuple[str, ...], tuple[list[ResultDefault], str | None]] = {}
        self._pieces: dict[Origin, dict[str, Piece]] = {}
        self._merged: dict[tuple[Any, ...], Section] = {}
        self._once = Once()

    @classmethod
    def over(cls, conf: Path = CONF) -> Composer:
        """A composer outside a Hydra application."""
        return cls(stand_alone_loader(conf))

    def cell(self, overrides: Sequence[str]) -> Config:
        """One cell. Raises ConfigError with all its faults."""
        return self.grid([overrides])[0]

    def grid(self, lists: Sequence[Sequence[str]], *, now: datetime | None = None) -> list[Config]:
        """A cell for each list of overrides. Raises ConfigError with the faults of all of them, each once."""
        drafts = self.gather(lists, now=now)
        faults = [fault for draft in drafts for fault in draft.faults]
        if faults:
            raise ConfigError(counted(faults, len(lists)))
        return [draft.cell for draft in drafts if draft.cell is not None]

    def gather(self, lists: Sequence[Sequence[str]], *, now: datetime | None = None, one_cell: bool = False) -> list[Draft]:
        """A draft for each list of overrides, with arm, seeds and study name settled.

        `one_cell`: the only list is one cell of an experiment, whose grid keeps the experiment's name.
        """
        drafts = [self.draft(overrides) for overrides in lists]
        name = default_study_name((draft.experiment for draft in drafts), now or datetime.now())
        if one_cell and any(draft.cell is not None and draft.cell.study.grids for draft in drafts):
            name += ONE_CELL
        settler = Settler(name)
        settled = []
        for draft in drafts:
            if draft.cell is not None:
                cell, faults = settler.settle(draft.cell)
                draft = dataclasses.replace(draft, cell=cell, faults=(*draft.faults, *(faults if draft.chosen else ())))
            settled.append(draft)
        return settled

    def draft(self, overrides: Sequence[str]) -> Draft:
        """One cell without what is settled over a whole grid."""
        groups: dict[str, Override] = {}
        values: dict[str, list[Override]] = {}
        faults: list[Fault] = []
        chosen = True
        for text in one_pool(overrides):
            one = self.parse(text)
            if isinstance(one, Fault):
                faults.append(one)
            elif self._is_group(one):
                fault = self._group_fault(one)
                if fault:
                    faults.append(fault)
                    chosen = chosen and one.is_hydra_override()
                elif not one.is_hydra_override():
                    groups[one.get_key_element()] = one
            elif not one.is_hydra_override():
                values.setdefault(one.key_or_group.split(".")[0], []).append(one)
        for name in [name for name in values if name not in SECTIONS]:
            faults += [fault for one in values.pop(name) for fault in misplaced(one)]
        base = self._base(groups)
        faults += base.faults
        if not base.sections:
            return Draft(None, base.experiment, tuple(faults))
        interpolated = any(section.interpolated for section in base.sections.values()) or any("${" in text for text in overrides)
        if interpolated and not faults:
            return self._interpolated(base, [one for ones in values.values() for one in ones])
        return dataclasses.replace(self._assemble(base, values, faults), chosen=chosen)

    def parse(self, text: str) -> Override | Fault:
        """An override of the command line; a sweep where `text` is one."""
        if text not in self._parsed:
            try:
                one = self._parser.parse_overrides([text])[0]
                self._parsed[text] = one if one.key_or_group else Fault(text, "", "is no override; write key=value")
            except HydraException as error:
                key, equals, value = text.partition("=")
                lines = [line for line in str(error).splitlines() if line and not line.startswith("See http")]
                why = f": {lines[0]} (quotes keep what Hydra's grammar does not know: '{key}=\"…\"')" if equals else "; write key=value"
                self._parsed[text] = Fault(key, value, f"is no override{why}")
        return self._parsed[text]

    def options(self, group: str) -> list[str]:
        """The choices of a group, those in folders below it included."""
        found = list(self._repo.get_group_options(group, ObjectType.CONFIG))
        for folder in self._repo.get_group_options(group, ObjectType.GROUP):
            found += [f"{folder}/{name}" for name in self.options(f"{group}/{folder}")]
        return found

    def by_hydra(self, overrides: Sequence[str], *, now: datetime | None = None) -> Config:
        """The same cell by Hydra's own composition: slow, and what `grid` must agree with but for what is lost with a choice."""
        overrides = one_pool(overrides)
        loaded = self._loader.load_configuration(self._primary, [*self._hydra, *overrides], RunMode.RUN)
        OmegaConf.set_struct(loaded, False)
        chosen = {one.get_key_element(): one for one in self._parser.parse_overrides(list(overrides)) if self._is_group(one)}
        for key in (key for section in self._base(chosen).sections.values() for key in section.lost):
            path, _, name = key.rpartition(".")
            node = OmegaConf.select(loaded, path)
            if OmegaConf.get_type(node) is dict:
                node.pop(name)
            else:
                node[name] = None
        return from_hydra(loaded, now=now)

    def _is_group(self, one: Override) -> bool:
        """As Hydra decides: a mapping is a value even where the key is a group."""
        key = one.key_or_group
        if key not in self._groups:
            self._groups[key] = self._repo.group_exists(key)
        return self._groups[key] and not isinstance(one.value(), dict)

    def _group_fault(self, one: Override) -> Fault | None:
        value, key = one.value(), one.key_or_group
        if one.is_sweep_override():
            return _sweep_fault(one)
        if one.is_delete():
            return None
        if value is None:
            return Fault(key, value, f"~{key} leaves the group out")
        if isinstance(value, list) and key not in MANY:
            return several_fault(key, one.get_value_string())
        for choice in value if isinstance(value, list) else [value]:
            if key == "stream" and isinstance(choice, str) and choice.startswith("teacher:"):
                return Fault(
                    key, choice, f"is the arm that source.teacher={choice.removeprefix('teacher:')} makes; say that, with the source"
                )
            if not isinstance(choice, str) or not self._exists(f"{key}/{choice}"):
                return Fault(key, choice, f"unknown choice; {one_of(str(choice), self.options(key))}")
        return None

    def _exists(self, path: str) -> bool:
        if path not in self._there:
            self._there[path] = self._repo.config_exists(path)
        return self._there[path]

    def _base(self, groups: dict[str, Override]) -> _Base:
        key = tuple(f"{name}={_choice(one)}" for name, one in sorted(groups.items()))
        if key not in self._bases:
            self._bases[key] = self._compose_base(groups)
        return self._bases[key]

    def _compose_base(self, groups: dict[str, Override]) -> _Base:
        try:
            defaults, experiment = self._defaults(groups)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            return _Base({}, None, (_defaults_fault(error, groups, self._primary),))
        faults: list[Fault] = []
        origins = self._origins(defaults, faults)
        meant = self._origins(self._meant(groups), []) if any(map(self._is_patch, origins["all"])) else origins
        sections = {name: self._section(name, tuple(origins[name]), tuple(meant[name])) for name in SECTIONS}
        faults += [fault for section in sections.values() for fault in section.faults]
        return _Base(sections, experiment, tuple(faults))

    def _origins(self, defaults: Sequence[ResultDefault], faults: list[Fault]) -> dict[str, list[Origin]]:
        """The files that each section comes from, in order; "all": of all sections."""
        origins: dict[str, list[Origin]] = {name: [] for name in (*SECTIONS, "all")}
        for default in defaults:
            path = default.config_path or ""
            if path.startswith("hydra/"):
                continue
            origins["all"].append((path, default.package))
            for name in self._load(default):
                if name in origins:
                    origins[name].append((path, default.package))
                else:
                    faults.append(Fault(name, "", f"unknown key in conf/{path}.yaml; {one_of(name, SECTIONS)}"))
        return origins

    def _meant(self, groups: dict[str, Override]) -> list[ResultDefault]:
        """The files that were merged if nothing but the experiment were chosen: what it was written over."""
        return self._defaults({name: one for name, one in groups.items() if name == "experiment"})[0]

    def _is_patch(self, origin: Origin) -> bool:
        """Whether a file is no choice of a group, but changes choices of several."""
        return origin[0] == self._primary or origin[0].startswith("experiment/")

    def _defaults(self, groups: dict[str, Override]) -> tuple[list[ResultDefault], str | None]:
        """The files that Hydra merges for these choices, in order, and the experiment among them.

        Files without a defaults list of their own are leaves of Hydra's tree: for two choices of the same
        groups the list differs in those entries alone, and is computed once.
        """
        leaves = {name: f"{one.key_or_group}/{one.value()}" for name, one in groups.items() if self._is_leaf(one)}
        shape = (*(f"{name}={_choice(one)}" for name, one in sorted(groups.items()) if name not in leaves), "", *sorted(leaves))
        if shape not in self._shapes:
            made = create_defaults_list(
                repo=self._repo, config_name=self._primary, overrides_list=list(groups.values()), prepend_hydra=True, skip_missing=False
            )
            self._shapes[shape] = (made.defaults, made.overrides.known_choices.get("experiment"))
        defaults, experiment = self._shapes[shape]
        if "experiment" in leaves:
            experiment = str(groups["experiment"].value())
        return [self._swapped(default, leaves) for default in defaults], experiment

    def _is_leaf(self, one: Override) -> bool:
        value = one.value()
        if one.type != OverrideType.CHANGE or one.package is not None or not isinstance(value, str):
            return False
        loaded = self._repo.load_config(f"{one.key_or_group}/{value}")
        return loaded is not None and not loaded.defaults_list

    def _swapped(self, default: ResultDefault, leaves: dict[str, str]) -> ResultDefault:
        path = leaves.get(default.override_key or "")
        if path is None or path == default.config_path:
            return default
        key = default.override_key or ""
        node = GroupDefault(group=key, value=path[len(key) + 1 :])
        node.update_parent("", "")
        update_package_header(self._repo, node)
        return dataclasses.replace(default, config_path=path, package=node.get_final_package())

    def _load(self, default: ResultDefault) -> dict[str, Piece]:
        """A file of the defaults list, cut by section."""
        key = (default.config_path or "", default.package)
        if key not in self._pieces:
            config = self._loader._load_single_config(default, self._repo).config
            assert isinstance(config, DictConfig)
            names = [str(name) for name in config if name not in ("hydra", "defaults")]
            self._pieces[key] = {name: Piece(key[0], _alone(config, name)) for name in names}
        return self._pieces[key]

    def _section(self, name: str, origins: tuple[Origin, ...], meant: tuple[Origin, ...]) -> Section:
        """The section of these files; what patches changed of a choice that was `meant`, and is not made, is left out."""
        if origins == meant:
            return self._merge(name, origins, ())
        over = tuple(tuple(origin for origin in of if not self._is_patch(origin)) for of in (meant, origins))
        return self._merge(name, origins, over if over[0] != over[1] else ())

    def _merge(self, name: str, origins: tuple[Origin, ...], over: tuple[tuple[Origin, ...], ...]) -> Section:
        key = (name, origins, over)
        lost: tuple[str, ...] = ()
        if key not in self._merged:
            pieces = [self._pieces[origin][name] for origin in origins]
            if over:
                was, now = (self._merge(name, choices, ()).root for choices in over)
                each = [lost_entries(piece, was, now) if self._is_patch(of) else [] for of, piece in zip(origins, pieces, strict=True)]
                pieces = [without(piece, keys) for piece, keys in zip(pieces, each, strict=True)]
                lost = tuple(dict.fromkeys(name for keys in each for name in keys))
            self._merged[key] = dataclasses.replace(merge(name, pieces), lost=lost)
        return self._merged[key]

    def _assemble(self, base: _Base, values: dict[str, list[Override]], faults: list[Fault]) -> Draft:
        given = {name: section.value for name, section in base.sections.items()}
        for name, ones in values.items():
            given[name], more = self._once(_applied, base.sections[name], *ones)
            faults += more
        whole = all(value is not BROKEN for value in given.values())
        return Draft(Config(**given) if whole else None, base.experiment, tuple(faults))

    def _interpolated(self, base: _Base, values: Sequence[Override]) -> Draft:
        """A cell some of whose settings refer to others, so that its sections are composed together."""
        root = base.whole()
        try:
            ConfigLoaderImpl._apply_overrides_to_config(list(values), root)
            return Draft(typed(root), base.experiment)
        except ConfigError as error:
            return Draft(None, base.experiment, error.faults)
        except (HydraException, OmegaConfBaseException) as error:
            given = " ".join(one.input_line or "" for one in values)
            return Draft(None, base.experiment, (Fault("overrides", given, str(error.__cause__ or error).splitlines()[0]),))


@functools.cache
def _composer(conf: Path) -> Composer:
    return Composer.over(conf)


def compose_cell(overrides: Sequence[str] = (), *, conf: Path = CONF) -> Config:
    """One cell from overrides as on the command line. Raises ConfigError with all faults."""
    return _composer(conf).cell(overrides)


def _applied(section: Section, *ones: Override) -> tuple[Any, list[Fault]]:
    """A section's value with overrides, and what is wrong with them."""
    sweeps = [_sweep_fault(one) for one in ones if one.is_sweep_override()]
    return (section.value, sweeps) if sweeps else override(section, ones)


def _sweep_fault(one: Override) -> Fault:
    return Fault(one.key_or_group, one.get_value_string(), "is a sweep; add -m to run one cell for each")


def _defaults_fault(error: Exception, groups: dict[str, Override], primary: str) -> Fault:
    text = " ".join(str(error).split("Config search path")[0].split())
    if text.startswith("Cannot find primary config"):
        return Fault("--config-name", primary, f"no file {primary}.yaml in qup's configuration or in your own")
    for name, one in groups.items():
        if one.is_add() and text.startswith(f"Multiple values for {one.key_or_group}."):
            return Fault(name, _choice(one), f"the group has its place already; without the +: {one.key_or_group}={_choice(one)}")
    return Fault(", ".join(groups), ", ".join(_choice(one) for one in groups.values()), text)


def _choice(one: Override) -> str:
    value = one.value()
    return ",".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _alone(config: DictConfig, name: str) -> DictConfig:
    """A root that holds one section of `config`, with that section's type."""
    root = OmegaConf.create({})
    root._set_item_impl(name, config._get_node(name))
    return root
