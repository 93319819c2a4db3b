"""Where and how a study runs, what is kept, tracked and concluded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qup.config.schema.fields import opt, section


@dataclass(frozen=True)
class Tracking:
    """Where runs are logged beside the store."""

    name: str = opt("none", "who tracks", choices=("none", "wandb"))
    project: str = opt("qup", "W&B project")
    entity: str | None = opt(None, "W&B entity")
    mode: str = opt("auto", "auto: online where there is a key, else offline", choices=("auto", "online", "offline"))
    tags: list[str] = opt([], "tags on every run")
    artifacts: bool = opt(False, "log data and models as references")


@dataclass(frozen=True)
class Resources:
    """What one stage kind asks for."""

    partition: str | None = opt(None, "SLURM partition")
    account: str | None = opt(None, "SLURM account")
    qos: str | None = opt(None, "SLURM quality of service")
    constraint: str | None = opt(None, "SLURM node features")
    nodes: int = opt(1, "nodes", at_least=1)
    gpus: str = opt("0", "GPUs a node: a number, or type:number")
    tasks: int = opt(1, "tasks a node", at_least=1)
    cpus: int = opt(1, "cores a task", at_least=1)
    mem: str = opt("2G", "memory a node")
    time: str = opt("1:00:00", "time limit: minutes, or [days-]hours:minutes:seconds")
    exclude: str | None = opt(None, "nodes to stay away from")
    reservation: str | None = opt(None, "SLURM reservation")
    extra: dict[str, Any] = opt({}, "further sbatch parameters, long names without dashes; true for one without a value")
    srun: list[str] = opt([], "further arguments of srun, such as --cpu-bind=cores")
    at_once: int | None = opt(None, "most tasks of an array that run at once", at_least=1)
    setup: list[str] = opt([], "shell lines run before the stage")
    where: str = opt("job", "job: in a SLURM job; here: on the machine that launches", choices=("job", "here"))
    workers: int = opt(1, "array tasks that share a sharded stage", at_least=1)


@dataclass(frozen=True)
class Cluster:
    """Resources by stage kind, and how the grid is handed to SLURM. Changes no result."""

    name: str = opt("local", "label")
    problems: Resources = section(Resources, "reading and decontaminating problems")
    student: Resources = section(Resources, "pretraining of a lab student")
    reward_model: Resources = section(Resources, "training of the lab's outcome reward model")
    rollouts: Resources = section(Resources, "the student's responses")
    solvable: Resources = section(Resources, "the fixed problem set")
    oracle: Resources = section(Resources, "stages that call the Oracle")
    streams: Resources = section(Resources, "candidates without an Oracle, alignment, selection")
    reward: Resources = section(Resources, "reward scores")
    perplexity: Resources = section(Resources, "NLL and rank of every token")
    retention: Resources = section(Resources, "the judge")
    train: Resources = section(Resources, "fine-tuning")
    evaluate: Resources = section(Resources, "benchmarks")
    report: Resources = section(Resources, "the report")
    driver: Resources = section(Resources, "the job that submits the rest of a grid above max_jobs")
    max_jobs: int = opt(1000, "above this a driver job submits the rest", at_least=1)
    nodes_submit: bool = opt(True, "whether a job may call sbatch, for the driver of grids above max_jobs")
    max_requeues: int = opt(5, "times a preempted or timed-out stage goes back into the queue", at_least=0)
    max_parallel: int | None = opt(None, "local launcher: most stages at once; by cores and memory where none", at_least=1)
    warn_s: int = opt(120, "seconds before the time limit at which a stage is told to save", at_least=1)


@dataclass(frozen=True)
class Store:
    """Where artifacts live."""

    dir: str = opt("store", "directory; nodes must see it")
    keep_weights: str = opt("all", "fine-tuned weights after their evaluation", choices=("all", "best", "none"))
    lease_s: float = opt(60.0, "seconds without a heartbeat after which a lease counts as abandoned", above=0)


@dataclass(frozen=True)
class Verdict:
    """The written rule by which the report decides."""

    reward: str | None = opt(None, "reward model named beforehand; the first configured where none")
    baseline: str = opt("slm_rft", "arm that the others are compared with")
    margin: float = opt(1.0, "points of Avg@k within which arms count as equal", above=0)


@dataclass(frozen=True)
class Study:
    """One grid under one name."""

    name: str | None = opt(
        None, "name of the study: the experiment's (with -cell behind it, where it has a grid and -m is left out), else the date"
    )
    dir: str = opt("multirun", "where studies are presented")
    seed: int | None = opt(None, "sets every seed")
    grids: list[dict[str, Any]] = opt([], "products of overrides, united; each maps a key to a comma-separated sweep")
    dry_run: bool = opt(False, "print and write the plan, run nothing")
    extend: bool = opt(False, "add this grid to the study of that name")
    replace: bool = opt(False, "put this grid in the place of the one that is registered under the study's name")
    wait: bool = opt(False, "SLURM: stay until the study ends")
    code: str = opt("frozen", "SLURM: run a snapshot of the code, or whatever is there when a job starts", choices=("frozen", "live"))
    other_code: str = opt("warn", "a stored artifact made by other code of the same version", choices=("warn", "refuse", "recompute"))
    max_gpu_hours: float | None = opt(None, "refuse to start above this", at_least=0)
    max_oracle_usd: float | None = opt(None, "refuse to start above this, and stop an Oracle stage at its share", at_least=0)
    rehearse: int | None = opt(None, "run the same graph on so many problems first", at_least=1)
    plain: bool = opt(False, "plain progress lines also on a terminal")
