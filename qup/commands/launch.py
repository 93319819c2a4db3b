"""One cell, or with -m a grid of them: compose, validate, hand over to qup.launch.

qup launch                          one cell, here
qup launch -m experiment=lab        a grid, here
qup launch --help                   groups and settings

Hydra reads the command line. A single cell goes through its multirun like a grid of one, so that both are composed
and judged by the same code. Own configuration is a folder `conf` where one launches, or what --config-dir names.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import hydra
import yaml
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qup.config.door import CONF, PRIMARY, from_hydra, stand_alone_loader
from qup.config.mutable import register
from qup.config.own import OWN, broken_files, folder_faults, hydra_faults
from qup.errors import ConfigError, Fault, QupError, machine_fault

ONE_CELL = "hydra.sweeper.one_cell=true"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs Hydra over the arguments, by default the process's, and turns its errors and ours into one message each.

    Exits 0; 1 for a failed stage; 2 for a configuration that is refused.
    """
    register()
    given = list(sys.argv[1:] if argv is None else argv)
    asked = get_args_parser().parse_args(given)
    if asked.config_dir is None and own_folder():
        given = ["--config-dir", OWN, *given]
        asked.config_dir = OWN
    wanted = os.environ.get("HYDRA_FULL_ERROR")
    # Hydra prints an error and exits unless this is set; then it hands the error up.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    before = sys.argv
    try:
        refuse_early(asked)
        if is_one_cell(asked) or is_grid(asked):
            run(asked)
        elif asked.cfg == "job" and not asked.multirun:
            show(asked)
        else:
            sys.argv = [before[0], *given]
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=PRIMARY)(run_cell)()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if wanted == "1":
            raise
        explain(error, asked)
    finally:
        sys.argv = before
        os.environ["HYDRA_FULL_ERROR"] = wanted or "0"


def own_folder() -> bool:
    """Whether there is configuration of one's own where one launches, which is not qup's."""
    return Path(OWN).is_dir() and Path(OWN).resolve() != CONF


def is_one_cell(asked: Namespace) -> bool:
    """Whether this command line runs a cell, and not a grid of them, nor shows something."""
    return not (_shows(asked) or asked.multirun or "hydra.mode=MULTIRUN" in asked.overrides)


def is_grid(asked: Namespace) -> bool:
    return not (_shows(asked) or asked.run or is_one_cell(asked))


def _shows(asked: Namespace) -> bool:
    return bool(
        asked.help or asked.hydra_help or asked.cfg or asked.info or asked.shell_completion or asked.resolve or asked.experimental_rerun
    )


def run(asked: Namespace) -> None:
    """Hydra's multirun; one cell is a grid whose sweeper is told so. Hydra's own door would first compose all of it to learn the mode."""
    loader = stand_alone_loader(Path(asked.config_path or CONF), asked.config_dir)
    overrides = [*([ONE_CELL] if is_one_cell(asked) else []), *asked.overrides, "hydra.mode=MULTIRUN"]
    application = Hydra("launch", loader)
    GlobalHydra.instance().initialize(application)
    try:
        application.multirun(asked.config_name or PRIMARY, run_cell, overrides)
    finally:
        GlobalHydra.instance().clear()


def show(asked: Namespace) -> None:
    """`--cfg job`, by the composition that a launch goes by."""
    from qup.commands.show import show_cell
    from qup.config.compose import Composer

    loader = stand_alone_loader(Path(asked.config_path or CONF), asked.config_dir)
    show_cell(Composer(loader, asked.overrides, primary=asked.config_name or PRIMARY), asked.overrides, asked.package)


def refuse_early(asked: Namespace) -> None:
    """What Hydra would take and do nothing with, or refuse in its own words; with all other faults of the command line."""
    faults = [*folder_faults(asked.config_dir), *hydra_faults(asked.overrides, one_cell=is_one_cell(asked))]
    if faults:
        refuse(ConfigError([*faults, *diagnosed(asked)]))


def run_cell(config: DictConfig) -> object:
    """Hydra's task, which launchers other than ours call cell by cell; returns the cell's total."""
    from qup.launch.launch import launch

    try:
        cell = from_hydra(config, OmegaConf.structured(HydraConfig.get()))
        outcome = launch([replace(cell, study=replace(cell.study, extend=True))], "local")
    except (QupError, OSError) as error:
        refuse(error)
    if outcome.status:
        sys.exit(outcome.status)
    return outcome.values[0] if outcome.values else None


def refuse(error: QupError | OSError) -> NoReturn:
    """The message, and exit status 2 for a configuration, 1 for anything else; what the machine is not at fault for is raised."""
    told = machine_fault(error) if isinstance(error, OSError) else str(error)
    if told is None:
        raise error
    print(told, file=sys.stderr)
    sys.exit(2 if isinstance(error, ConfigError) else 1)


def diagnosed(asked: Namespace) -> list[Fault]:
    """All faults of this command line; none where it can't be judged outside of Hydra."""
    from qup.config.compose import Composer
    from qup.launch.check import diagnose

    try:
        loader = stand_alone_loader(Path(asked.config_path or CONF), asked.config_dir)
        composer = Composer(loader, asked.overrides, primary=asked.config_name or PRIMARY)
        return diagnose(composer, asked.overrides, one_cell=is_one_cell(asked))
    except Exception:
        return []


def explain(error: Exception, asked: Namespace) -> NoReturn:
    """Our own errors as they are; what Hydra refused at its first fault with all faults and what was meant; bugs are raised."""
    causes = list(_causes(error))
    unread = isinstance(error, yaml.YAMLError) or str(error).startswith("Invalid loaded object type")
    if unread and (broken := broken_files(asked.config_dir)):
        refuse(ConfigError(broken))
    for cause in causes:
        if isinstance(cause, QupError) or (isinstance(cause, OSError) and not isinstance(cause, HydraException)):
            refuse(cause)
    if isinstance(error, ValueError) and "Only one of --run" in str(error):
        refuse(ConfigError([Fault("command line", " ".join(_shown(asked)), "one of them at a time")]))
    if faults := diagnosed(asked):
        refuse(ConfigError(faults))
    if isinstance(error, HydraException | OmegaConfBaseException):
        print("\n".join(text for cause in causes[:2] if (text := str(cause).strip())), file=sys.stderr)
        sys.exit(2)
    raise error


def _shown(asked: Namespace) -> list[str]:
    flags = {"--run": asked.run, "--multirun": asked.multirun, "--cfg": asked.cfg, "--info": asked.info, "-sc": asked.shell_completion}
    return [name for name, given in flags.items() if given]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


if __name__ == "__main__":
    main()
