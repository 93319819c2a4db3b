"""What can be told of servers before any is started."""

from __future__ import annotations

from collections.abc import Iterator

from qup.config.pools import needs_oracle
from qup.config.schema import Config, Oracle, Sampling
from qup.config.schema.choices import UNPOOLED
from qup.config.settle import BASE
from qup.errors import Fault, InputError
from qup.serving.command import find, flag_faults


def serving_faults(cell: Config) -> Iterator[Fault]:
    """What is wrong with a cell's settings of servers."""
    yield from flag_faults("vllm.args", cell.vllm.args, changing=False)
    for key, sampling in _samplings(cell):
        yield from flag_faults(f"{key}.vllm", sampling.vllm, changing=True)
    for key, oracle in _oracles(cell):
        yield from flag_faults(f"{key}.vllm", oracle.vllm, changing=True)
        if oracle.chat_template and (oracle.backend != "vllm" or oracle.base_url):
            yield Fault(
                f"{key}.chat_template",
                oracle.chat_template.partition("\n")[0],
                f"is read only where qup serves {key} itself, with {key}.backend=vllm",
            )
    for name, reward in cell.reward.items():
        yield from flag_faults(f"reward.{name}.vllm", reward.vllm, changing=True)
        if reward.backend == "vllm" and reward.format in UNPOOLED:
            yield Fault(f"reward.{name}.backend", "vllm", f"the score of format {reward.format} is no pooled output; transformers is valid")
    split = cell.vllm.tensor_parallel
    for key, sampling in _samplings(cell):
        asked = (cell.cluster.rollouts if key.startswith("rollouts") else cell.cluster.evaluate).gpus.rpartition(":")[2]
        if sampling.backend == "vllm" and split > 1 and asked.isdigit() and int(asked) % split:
            stage = key.partition(".")[0].replace("evaluation", "evaluate")
            yield Fault("vllm.tensor_parallel", split, f"must divide cluster.{stage}.gpus={asked}")


def serves(cell: Config) -> list[str]:
    """The settings by which a cell has a vLLM server started."""
    found = [f"{key}.backend" for key, sampling in _samplings(cell) if sampling.backend == "vllm"]
    wanted = cell.stream.name != BASE
    asked = [(key, oracle) for key, oracle in _oracles(cell) if wanted and (key == "judge" or needs_oracle(cell))]
    found += [f"{key}.backend" for key, oracle in asked if oracle.backend == "vllm" and oracle.base_url is None]
    if wanted:
        found += [f"reward.{name}.backend" for name, reward in cell.reward.items() if reward.backend == "vllm" and reward.base_url is None]
    return found


def program_faults(cell: Config) -> list[Fault]:
    """A fault where a cell has a server started and there is no program for it."""
    asking = serves(cell)
    if not asking:
        return []
    try:
        find(cell.vllm)
    except InputError as error:
        why = str(error).partition(": ")[2]
        return [Fault("vllm.command", cell.vllm.command, f"is needed for {', '.join(asking)}=vllm: {why}")]
    return []


def _samplings(cell: Config) -> list[tuple[str, Sampling]]:
    found = [("evaluation.sampling", cell.evaluation.sampling)]
    return found if cell.stream.name == BASE else [("rollouts.sampling", cell.rollouts.sampling), *found]


def _oracles(cell: Config) -> list[tuple[str, Oracle]]:
    teachers = [(f"teacher.{name}", oracle) for name, oracle in cell.teacher.items()]
    return [*(teachers or [("oracle", cell.oracle)]), ("judge", cell.judge)]
