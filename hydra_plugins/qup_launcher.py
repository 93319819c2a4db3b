"""Hydra's launchers `local` and `slurm`: all cells of a batch go to qup.launch as one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    """Stages run as processes on this machine."""

    launcher = "local"

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context = hydra_context
        self._config = config
        self._began = datetime.now()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Called by Hydra's own and other people's sweepers, batch by batch; each later batch extends the study.

        A cell's return value is its total, "submitted" where SLURM has it and study.wait is false, and an
        error where it failed.
        """
        from qup.config.compose import Composer
        from qup.errors import QupError
        from qup.launch.launch import launch

        hydra = self._config.hydra
        composer = Composer(self._context.config_loader, list(hydra.overrides.hydra), primary=hydra.job.config_name)
        cells = composer.grid(job_overrides, now=self._began)
        if initial_job_idx > 0:
            cells = [replace(cell, study=replace(cell.study, extend=True, replace=False)) for cell in cells]
        outcome = launch(cells, self.launcher)
        returns = []
        for overrides, value in zip(job_overrides, outcome.values or [None] * len(cells), strict=True):
            failed = bool(outcome.status) and value is None
            returned = QupError("this cell did not finish; see above for the stage that failed") if failed else value
            status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            returns.append(JobReturn(overrides=list(overrides), status=status, _return_value=returned))
        return returns


class SlurmLauncher(LocalLauncher):
    """Stages run as SLURM jobs."""

    launcher = "slurm"
