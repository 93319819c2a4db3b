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

BY_FIELD = {
    "nodes": "nodes", "ntasks": "tasks", "ntasks-per-node": "tasks", "cpus-per-task": "cpus", "mem": "mem", "mem-per-cpu": "mem",
    "mem-per-gpu": "mem", "time": "time", "partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint",
    "exclude": "exclude", "reservation": "reservation", "gpus": "gpus", "gpus-per-node": "gpus", "gpus-per-task": "gpus",
}  # fmt: skip
"""sbatch's options that a field of Resources stands for."""
OURS = (
    "array", "error", "export", "export-file", "hold", "input", "job-name", "kill-on-invalid-dep", "no-kill", "no-requeue", "open-mode",
    "output", "parsable", "quiet", "requeue", "signal", "test-only", "wait", "wrap",
)  # fmt: skip
"""Those that qup must set, or that would hide from it what became of a job."""


def _refused(option: str, value: object, name: str) -> str:
    """Why an sbatch option can't stand in `extra`; "" where it can. A comment, a dependency and a gres are joined with qup's own."""
    plain = option.replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", plain):
        return "must be a long sbatch option without its dashes; mail_type"
    if plain in BY_FIELD:
        return f"has a setting of its own: cluster.{name}.{BY_FIELD[plain]}"
    if plain in OURS:
        return "is set by qup, which would lose sight of its jobs"
    if not isinstance(value, str | int | float | bool | None):
        return "must be text, a number, or true for an option without a value"
    if plain == "dependency" and "?" in str(value):
        return "can't be joined with the stages that it waits for by ?, which means either; use commas"
    if plain == "gres" and "gpu" in str(value):
        return f"GPUs are asked for by cluster.{name}.gpus"
    return ""


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
        for option, value in asked.extra.items():
            if why := _refused(option, value, name):
                yield Fault(f"{key}.extra.{option}", value, why)
        for argument in asked.srun:
            if not argument.startswith("-"):
                yield Fault(f"{key}.srun", argument, "must be an argument with its dashes; --cpu-bind=cores")
        if asked.at_once is not None and asked.at_once >= 1 and name in ("report", "driver"):
            yield Fault(f"{key}.at_once", asked.at_once, "must be left out: this is no array")
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
