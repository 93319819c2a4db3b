"""What is asked of SLURM against what the partition can give, before anything is submitted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

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


def _faults(key: str, asked: Resources, everything: list[Partition]) -> list[Fault]:
    names = sorted({partition.name for partition in everything})
    named = [name.strip() for name in (asked.partition or "").split(",") if name.strip()]
    unknown = [name for name in named if name not in names]
    if unknown:
        told = f"there is no partition {', '.join(unknown)} that is up; there are {', '.join(names)}"
        return [Fault(f"{key}.partition", asked.partition, told)]
    each = [[one for one in everything if one.name == name] for name in named] or [[one for one in everything if one.default]]
    if not each[0]:
        return [Fault(f"{key}.partition", None, f"the cluster has no default partition; name one of {', '.join(names)}")]
    found = [_of_partition(key, asked, nodes) for nodes in each]
    return [] if not all(found) else [fault for faults in found for fault in faults]


def _of_partition(key: str, asked: Resources, nodes: list[Partition]) -> list[Fault]:
    """What one partition can't give."""
    label = nodes[0].name
    faults = []
    if asked.constraint and not satisfiable(asked.constraint, [node.features for node in nodes]):
        there = sorted({feature for node in nodes for feature in node.features} - {"(null)"})
        faults.append(Fault(f"{key}.constraint", asked.constraint, f"partition {label} has {', '.join(there) or 'no features'}"))
    total = sum(node.nodes for node in nodes)
    if asked.nodes > total:
        faults.append(Fault(f"{key}.nodes", asked.nodes, f"partition {label} has {total} nodes"))
    cpus = max(node.cpus for node in nodes)
    if asked.cpus * asked.tasks > cpus:
        faults.append(
            Fault(
                f"{key}.cpus",
                asked.cpus,
                f"with {asked.tasks} tasks a node this is {asked.cpus * asked.tasks} cores; a node of {label} has {cpus}",
            )
        )
    memory = max(node.memory_mb for node in nodes)
    wanted = parse_memory(asked.mem) >> 20
    if wanted > memory:
        faults.append(Fault(f"{key}.mem", asked.mem, f"a node of {label} has {memory}M"))
    kind, _, count = asked.gpus.rpartition(":")
    gpus = max(node.gpus(kind) for node in nodes)
    if int(count or 0) > gpus:
        what = f"GPUs of type {kind}" if kind else "GPUs"
        faults.append(
            Fault(
                f"{key}.gpus",
                asked.gpus,
                f"a node of {label} has {gpus} {what} (gres {', '.join(sorted({node.gres for node in nodes}))})",
            )
        )
    limit = max(node.minutes for node in nodes)
    if parse_minutes(asked.time) > limit:
        faults.append(Fault(f"{key}.time", asked.time, f"partition {label} allows {limit:.0f} minutes"))
    return faults


def satisfiable(constraint: str, nodes: Sequence[frozenset[str]]) -> bool:
    """Whether nodes with these features can satisfy sbatch's --constraint: `a&b`, `a|b`, `(a100&ib)`, `[rack1|rack2]`, `a100*2`.

    With counts or brackets different nodes answer for different features, so that each has to be there by itself. What can't
    be read is left to sbatch.
    """
    words = re.findall(r"[\w.=:+-]+|[&|()\[\],*]", constraint)
    if "".join(words) != constraint.replace(" ", ""):
        return True
    if {"*", "[", "]", ","} & set(words):
        everything = frozenset().union(*nodes)
        counts = {place + 1 for place, word in enumerate(words) if word == "*"}
        features = [word for place, word in enumerate(words) if place not in counts and word not in "&|()[],*"]
        return (any if "|" in words else all)(feature in everything for feature in features)
    return any(_holds(list(words), features) is not False for features in nodes)


def _holds(words: list[str], features: frozenset[str]) -> bool | None:
    """A constraint read from left to right, as SLURM does; None where it can't be read."""
    value: bool | None = None
    joined = ""
    while words and words[0] != ")":
        word = words.pop(0)
        if word in ("&", "|"):
            joined = word
            continue
        one = _holds(words, features) if word == "(" else word in features
        if word == "(" and words:
            words.pop(0)
        if one is None:
            return None
        value = one if value is None else (value and one) if joined == "&" else (value or one)
    return value
