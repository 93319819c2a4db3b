"""One cell, or with -m a grid of them: compose, validate, hand over to qup.launch.

python launch.py                          one cell, here
python launch.py -m experiment=lab        a grid, here
python launch.py --help                   groups and settings
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qup.config.door import CONF, from_hydra
from qup.config.twins import register
from qup.errors import ConfigError, Fault, QupError, surroundings


def run_cell(config: DictConfig) -> object:
    """Hydra's task: without -m Hydra asks no launcher, so one cell is handed over here. Returns its total."""
    from qup.launch.launch import launch

    chosen = HydraConfig.get()
    launcher = chosen.runtime.choices.get("hydra/launcher")
    if chosen.mode == RunMode.RUN and launcher not in ("local", "slurm"):
        refuse(ConfigError([Fault("hydra/launcher", launcher, "local or slurm; Hydra asks another launcher with -m only")]))
    where = "slurm" if launcher == "slurm" else "local"
    try:
        cell = from_hydra(config, OmegaConf.structured(chosen))
    except ConfigError as error:
        refuse(ConfigError(diagnosed() or error.faults))
    try:
        if chosen.mode == RunMode.MULTIRUN:
            cell = replace(cell, study=replace(cell.study, extend=True))
        elif cell.study.grids:
            print(f"this is one cell, as study {cell.study.name}; -m runs the experiment's grid of them", file=sys.stderr)
        outcome = launch([cell], where)
    except (QupError, OSError) as error:
        refuse(error)
    if outcome.status:
        sys.exit(outcome.status)
    return outcome.values[0] if outcome.values else None


def refuse(error: QupError | OSError) -> NoReturn:
    """The message, and exit status 2 for a configuration, 1 for anything else; what the machine is not at fault for is raised."""
    told = surroundings(error) if isinstance(error, OSError) else str(error)
    if told is None:
        raise error
    print(told, file=sys.stderr)
    sys.exit(2 if isinstance(error, ConfigError) else 1)


def diagnosed() -> list[Fault]:
    """All faults of this command line; none where it can't be judged outside of Hydra."""
    from hydra._internal.utils import get_args_parser

    from qup.launch.check import diagnose

    asked = get_args_parser().parse_args()
    try:
        return diagnose(asked.overrides, multirun=asked.multirun, config_dir=asked.config_dir)
    except Exception:
        return []


def explain(error: Exception) -> NoReturn:
    """What Hydra refused at its first fault, with all faults and what was meant; bugs keep their traceback."""
    if faults := diagnosed():
        refuse(ConfigError(faults))
    if isinstance(error, HydraException | OmegaConfBaseException):
        cause = error.__cause__
        print("\n".join(str(one).strip() for one in (error, cause) if one is not None and str(one).strip()), file=sys.stderr)
        sys.exit(2)
    raise error


def main() -> None:
    """Runs Hydra, and turns its errors and ours into one message each."""
    register()
    wanted = os.environ.get("HYDRA_FULL_ERROR")
    # Hydra prints an error and exits unless this is set; then it hands the error up.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run_cell)()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if wanted == "1":
            raise
        if isinstance(error, QupError) or (isinstance(error, OSError) and not isinstance(error, HydraException)):
            refuse(error)
        explain(error)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = wanted or "0"


if __name__ == "__main__":
    main()
