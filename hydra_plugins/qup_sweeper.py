"""Hydra's sweeper `qup`: study.grids and the command line's sweeps, composed fast, all faults told together."""

from __future__ import annotations

import sys
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class QupSweeper(Sweeper):
    """Hands the whole grid to the launcher at once."""

    def __init__(self, one_cell: bool = False, **given: Any) -> None:
        """`one_cell`: the arguments are one cell, whatever grid an experiment holds. Raises ConfigError for anything else."""
        from qup.config.own import GRIDS
        from qup.errors import ConfigError, Fault

        if given:
            raise ConfigError([Fault(f"hydra.sweeper.{name}", value, GRIDS) for name, value in given.items()])
        self._one_cell = one_cell

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context = hydra_context
        self._task = task_function
        self._config = config

    def sweep(self, arguments: list[str]) -> Any:
        """The cells' values. Raises QupError; exits with the launch's status where that isn't 0."""
        from hydra.core.plugins import Plugins

        from qup.config.compose import Composer
        from qup.config.sweeps import expand
        from qup.launch.check import checked_grid

        hydra = self._config.hydra
        composer = Composer(self._context.config_loader, list(hydra.overrides.hydra), primary=hydra.job.config_name)
        lists = [arguments] if self._one_cell else expand(composer, arguments)
        plugin = Plugins.instance().instantiate_launcher(hydra_context=self._context, task_function=self._task, config=self._config)
        launcher = getattr(plugin, "launcher", None)
        if launcher is None:
            return plugin.launch(lists, initial_job_idx=0)
        from qup.launch.launch import launch

        cells = checked_grid(composer, lists, launcher=launcher, one_cell=self._one_cell)
        if self._one_cell and cells[0].study.grids:
            print(f"this is one cell, as study {cells[0].study.name}; -m runs the experiment's grid of them", file=sys.stderr)
        outcome = launch(cells, launcher, checked=True)
        if outcome.status:
            sys.exit(outcome.status)
        return outcome.values
