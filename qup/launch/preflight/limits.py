"""What is asked of SLURM against what the partition can give, before anything is submitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qup.config.schema import Cluster, Resources
from qup.errors import ConfigError, Fault
from qup.launch.slurm.commands import Partition
from qup.launch.units import parse_memory, parse_minutes


def check_limits(cluster: Cluster, used: Mapping[str, Resources], partitions: Iterable[Partition]) -> None:
    """Raises ConfigError with every field of `used` (cluster field → resources) that no node of its partition can satisfy."""
    everything = list(partitions)
    faults: list[Fault] = []
    for name, asked in used.items():
        faults.extend(_faults(f"cluster.{name}", asked, everything))
    if faults:
        raise ConfigError(faults)


def _faults(where: str, asked: Resources, everything: list[Partition]) -> list[Fault]:
    names = sorted({partition.name for partition in everything})
    nodes = [partition for partition in everything if (partition.name == asked.partition if asked.partition else partition.default)]
    if not nodes:
        if asked.partition:
            return [Fault(f"{where}.partition", asked.partition, f"there is no such partition that is up; there are {', '.join(names)}")]
        return [Fault(f"{where}.partition", None, f"the cluster has no default partition; name one of {', '.join(names)}")]
    label = nodes[0].name
    faults = []
    if asked.constraint and not any(set(asked.constraint.split("&")) <= node.features for node in nodes) and "|" not in asked.constraint:
        there = sorted({feature for node in nodes for feature in node.features} - {"(null)"})
        faults.append(Fault(f"{where}.constraint", asked.constraint, f"partition {label} has {', '.join(there) or 'no features'}"))
    total = sum(node.nodes for node in nodes)
    if asked.nodes > total:
        faults.append(Fault(f"{where}.nodes", asked.nodes, f"partition {label} has {total} nodes"))
    cpus = max(node.cpus for node in nodes)
    if asked.cpus * asked.tasks > cpus:
        faults.append(
            Fault(
                f"{where}.cpus",
                asked.cpus,
                f"with {asked.tasks} tasks a node this is {asked.cpus * asked.tasks} cores; a node of {label} has {cpus}",
            )
        )
    memory = max(node.memory_mb for node in nodes)
    wanted = parse_memory(asked.mem) >> 20
    if wanted > memory:
        faults.append(Fault(f"{where}.mem", asked.mem, f"a node of {label} has {memory}M"))
    kind, _, count = asked.gpus.rpartition(":")
    gpus = max(node.gpus(kind) for node in nodes)
    if int(count or 0) > gpus:
        what = f"GPUs of type {kind}" if kind else "GPUs"
        faults.append(
            Fault(
                f"{where}.gpus",
                asked.gpus,
                f"a node of {label} has {gpus} {what} (gres {', '.join(sorted({node.gres for node in nodes}))})",
            )
        )
    limit = max(node.minutes for node in nodes)
    if parse_minutes(asked.time) > limit:
        faults.append(Fault(f"{where}.time", asked.time, f"partition {label} allows {limit:.0f} minutes"))
    return faults
