"""What stages ask of a cluster, looked at before anything is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from qup.config.schema import Cluster, Resources
from qup.errors import Fault
from qup.pipeline.kinds import KINDS, Kind

TIME = re.compile(r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+|\d+-\d+:\d\d|\d+-\d+:\d\d:\d\d")
MEMORY = re.compile(r"[1-9]\d*[KMGTkmgt]?")
GPUS = re.compile(r"([A-Za-z][\w.-]*:)?\d+")


def _fields(chosen: Callable[[Kind], bool]) -> list[str]:
    """The fields of Cluster that the chosen kinds are given by."""
    names = (name for kind in KINDS.values() if chosen(kind) for name in (kind.asking, kind.resources) if name)
    return list(dict.fromkeys(names))


def request_faults(cluster: Cluster, launcher: str) -> Iterator[Fault]:
    """What is wrong with what stages ask for, by itself and by what their kinds can use."""
    shared, ranked = _fields(lambda kind: kind.sharded), _fields(lambda kind: kind.ranks)
    for name, asked in vars(cluster).items():
        if not isinstance(asked, Resources):
            continue
        key = f"cluster.{name}"
        if not TIME.fullmatch(asked.time):
            yield Fault(
                f"{key}.time", asked.time, "must be minutes, hours:minutes:seconds or days-hours:minutes:seconds; 90, 1:30:00, 2-12:00:00"
            )
        if not MEMORY.fullmatch(asked.mem):
            yield Fault(f"{key}.mem", asked.mem, "must be a whole number with K, M, G or T; 500M, 16G")
        if not GPUS.fullmatch(asked.gpus):
            yield Fault(f"{key}.gpus", asked.gpus, "must be a number, or type:number; 0, 8, a100:2")
        for option in asked.extra:
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", option) or option.startswith("-"):
                yield Fault(f"{key}.extra.{option}", asked.extra[option], "must be a long sbatch option without its dashes; mail_type")
        if asked.nodes > 1 and name not in ranked:
            yield Fault(f"{key}.nodes", asked.nodes, "must be 1: only training runs over several nodes")
        elif asked.nodes > 1 and launcher == "local":
            yield Fault(f"{key}.nodes", asked.nodes, "must be 1 here; several nodes need hydra/launcher=slurm")
        if asked.workers > 1 and name not in shared:
            yield Fault(f"{key}.workers", asked.workers, f"must be 1: the stages that workers share are {', '.join(shared)}")
        if launcher == "slurm" and 1 < asked.workers >= cluster.max_jobs:
            together = f"must be above {key}.workers={asked.workers}: a stage's workers and their merge are submitted together"
            yield Fault("cluster.max_jobs", cluster.max_jobs, together)
        gpus = asked.gpus.rpartition(":")[2]
        if gpus.isdigit() and int(gpus) > 0 and asked.tasks not in (1, int(gpus)):
            yield Fault(f"{key}.tasks", asked.tasks, f"must be 1 or {gpus}, one for each of {key}.gpus={asked.gpus}")
