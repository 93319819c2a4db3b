"""Grids on a real SLURM, against hydra-submitit-launcher; and our own composing, planning and status as grids grow.

    python -m benchmarks.launch [cluster] [scale] [--cells 64]

The cluster is SLURM's own daemons with two virtual nodes on this machine; a stage is a recording that sleeps for a second.
Two shapes: cells that share nothing (responses and their evaluation), and a grid of the paper's kind, in which cells share most. The peer's
cell does every one of its stages itself, because it knows no other way. Both sides get the same resources a job and the same Python.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Check, Measure, conclude, run, timed
from qup.config.compose import Composer
from qup.config.schema import Cluster as ClusterSettings
from qup.config.sweeps import expand
from qup.errors import InputError
from qup.pipeline.kinds import KINDS as STAGES
from tests.helpers.overlay import ROOT, Overlay
from tests.helpers.slurm_cluster import Cluster, installed

RESOURCES = [
    f"cluster.{name}.{setting}"
    for name, field in ClusterSettings.__dataclass_fields__.items()
    if field.type == "Resources"
    for setting in ("mem=50M", "time=5")
]
OWN_S, STATUS_S, PLAN_S = 2.0, 1.0, 2.0
"""Seconds allowed: of our own at submission, for `qup status` of 1,000 cells, for planning 1,000 cells."""
SIZES = (100, 1_000, 10_000)
SAMPLE = 20
"""Cells of each size that Hydra itself composes, to be timed and compared."""
LRS = "1e-4,2e-4,5e-4,1e-3,2e-3,3e-3,4e-3,5e-3,6e-3,7e-3"

PEER = """
import pathlib, time
import hydra

@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config):
    time.sleep(config.seconds)
    pathlib.Path(config.results, str(config.cell)).write_text("1.0")
    return 1.0

main()
"""


@dataclass(frozen=True)
class Side:
    """What one way of submitting a grid took."""

    free_s: float
    """Until the shell is free."""
    wall_s: float
    """Until all results are there."""
    jobs: int
    runs: int
    """Stages run, or cells where a cell is all there is."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=("cluster", "scale", []), default=[], help="both where none")
    parser.add_argument("--cells", type=int, default=64, help="cells of the grids on the cluster")
    parser.add_argument("--child", type=int, metavar="N", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(scaled(args.child)))
        return 0
    if not installed():
        raise InputError("SLURM's daemons are missing: apt-get install slurmctld slurmd slurm-client")
    parts = args.parts or ["cluster", "scale"]
    measures: list[Measure] = []
    checks: list[Check] = []
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="qup-bench-") as name, running_cluster(Path(name) / "slurm") as cluster:
        for part in parts:
            found = (on_cluster if part == "cluster" else scaling)(Path(name), cluster, args.cells)
            measures += found[0]
            checks += found[1]
            facts |= found[2]
    return conclude("launch", measures, checks, **facts)


@contextmanager
def running_cluster(root: Path) -> Iterator[Cluster]:
    root.mkdir()
    cluster = Cluster(root, nodes=2, cpus=16)
    cluster.start()
    os.environ["SLURM_CONF"] = str(cluster.conf)
    try:
        yield cluster
    finally:
        cluster.stop()


def overlay_in(folder: Path, cluster: Cluster) -> Overlay:
    """Recorded stages, and the real command to launch them with."""
    overlay = Overlay(folder)
    shutil.copy(ROOT / "launch.py", overlay.root)
    # as an installed package is
    compileall.compile_dir(overlay.root, quiet=1)
    overlay.env["SLURM_CONF"] = str(cluster.conf)
    return overlay


def on_cluster(folder: Path, cluster: Cluster, cells: int) -> tuple[list[Measure], list[Check], dict[str, Any]]:
    """Both shapes, ours and the peer's."""
    model = outside_model(folder / "model")
    apart = [f"evaluation.sampling.seed={','.join(map(str, range(cells)))}"]
    alone = ["stream=base", "model.lab=null", f"model.path={model}", "model.template=final_answer", *apart]
    shared = [
        "stream=slm_rft,oracle_refined,oracle_synthesized,style_aligned",
        "trainer=sft,dft",
        f"seed={','.join(map(str, range(cells // 8)))}",
    ]
    one = ours(folder / "alone", cluster, alone)
    every = ours(folder / "shared", cluster, shared)
    peer_one = peer(folder / "peer-alone", cluster, cells, seconds=one.plan["stage_runs"] // one.plan["cells"])
    peer_every = peer(folder / "peer-shared", cluster, cells, seconds=every.plan["stage_runs"] // every.plan["cells"])
    paper = dry_run(folder / "paper", cluster, ["experiment=paper/table1"])
    measures = [
        Measure(f"{cells} cells that share nothing: seconds to all results", "s", one.side.wall_s, peer_one.wall_s, 1.0, "lower"),
        Measure(f"{cells} cells that share nothing: seconds until the shell is free", "s", one.side.free_s, peer_one.free_s, 1.0, "lower"),
        Measure(f"{cells} cells of the paper's kind: seconds to all results", "s", every.side.wall_s, peer_every.wall_s, 1.0, "lower"),
        Measure(
            f"{cells} cells of the paper's kind: seconds until the shell is free", "s", every.side.free_s, peer_every.free_s, 1.0, "lower"
        ),
        Measure("paper/table1: stages run of cells × stages", "stages", paper["stages"], paper["stage_runs"], 2.0, "lower"),
    ]
    checks = []
    for what, found in (("nothing shared", one), ("the paper's kind", every)):
        own = found.side.free_s - found.compose_s
        checks.append(
            Check(f"{what}: our own seconds beyond composition ≤ {OWN_S:g}", own <= OWN_S, f"{own:.2f} ({found.calls} sbatch calls)")
        )
        distinct = found.plan["to_run"]
        checks.append(
            Check(f"{what}: stage runs are the distinct missing keys", found.side.runs == distinct, f"{found.side.runs} of {distinct}")
        )
    facts = {"jobs": {"nothing shared": [one.side.jobs, peer_one.jobs], "the paper's kind": [every.side.jobs, peer_every.jobs]}}
    return measures, checks, facts


@dataclass(frozen=True)
class Ours:
    side: Side
    compose_s: float
    calls: int
    plan: dict[str, Any]


def ours(folder: Path, cluster: Cluster, overrides: Sequence[str]) -> Ours:
    """`launch.py -m` on the cluster, then `qup wait`; composition timed by itself in a process of its own."""
    overlay = overlay_in(folder, cluster)
    for kind in STAGES:
        overlay.order(kind, sleep=1)
    given = [*overrides, *RESOURCES, "study.name=bench"]
    composer = Composer.over()
    lists = expand(composer, given)
    _, compose_s = timed(lambda: composer.grid(lists))
    command = [sys.executable, str(overlay.root / "launch.py"), "-m", "hydra/launcher=slurm", *given]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=overlay.work, env=overlay.environment(), capture_output=True, text=True, encoding="utf-8")
    free_s = time.perf_counter() - start
    if done.returncode:
        raise InputError(f"our launch failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    cluster.wait_for(lambda: not queued(cluster, " report"), "our jobs", 1200)
    wall_s = time.perf_counter() - start
    plan = json.loads((overlay.work / "multirun" / "bench" / "plan.json").read_text(encoding="utf-8"))["totals"]
    status, said = overlay.qup("wait", "bench")
    if status:
        raise InputError(f"our study did not finish: {said[-2000:]}")
    calls = next(line for line in done.stdout.splitlines() if line.startswith("submitted"))
    runs = len({(entry["kind"], entry["key"]) for entry in overlay.runs("ended")})
    again = len(overlay.runs("ended")) - runs
    return Ours(Side(free_s, wall_s, plan["to_run"] + 1, runs + again), compose_s, int(calls.split(" as ")[1].split()[0]), plan)


def queued(cluster: Cluster, but: str) -> list[str]:
    """Jobs in the queue, those whose comment ends as `but` says left out."""
    lines = cluster.run("squeue", "-h", "-o", "%i %k").splitlines()
    return [line for line in lines if not line.endswith(but)]


def peer(folder: Path, cluster: Cluster, cells: int, seconds: int) -> Side:
    """The same grid by hydra-submitit-launcher: a job a cell, and the client stays."""
    results = folder / "results"
    results.mkdir(parents=True)
    (folder / "app.py").write_text(PEER, encoding="utf-8")
    small_jobs = ["hydra.launcher.mem_gb=null", "+hydra.launcher.additional_parameters={mem: 50M}", "hydra.launcher.timeout_min=5"]
    fixed = ["hydra/launcher=submitit_slurm", *small_jobs, f"+seconds={seconds}", f"+results={results}"]
    command = [sys.executable, "app.py", "-m", *fixed, f"+cell={','.join(map(str, range(cells)))}"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8")
    free_s = time.perf_counter() - start
    if done.returncode or len(list(results.iterdir())) != cells:
        raise InputError(f"the peer failed, {len(list(results.iterdir()))} of {cells} results: {done.stderr[-2000:]}")
    wall_s = max(path.stat().st_mtime for path in results.iterdir()) - (time.time() - (time.perf_counter() - start))
    return Side(free_s, wall_s, cells, cells)


def dry_run(folder: Path, cluster: Cluster, overrides: Sequence[str]) -> dict[str, Any]:
    """Totals of a plan."""
    overlay = overlay_in(folder, cluster)
    command = [sys.executable, str(overlay.root / "launch.py"), "-m", *overrides, "study.dry_run=true", "study.name=bench"]
    done = subprocess.run(command, cwd=overlay.work, env=overlay.environment(), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise InputError(f"{' '.join(overrides)} did not plan: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads((overlay.work / "multirun" / "bench" / "plan.json").read_text(encoding="utf-8"))["totals"]
    return found


def outside_model(folder: Path) -> Path:
    """A model by directory, so that a cell needs nothing but its evaluation."""
    from tests.helpers.tiny import make_tiny

    return make_tiny(folder)


def grid_of(cells: int) -> list[str]:
    """Overrides of a grid with so many cells: twenty recipes by learning rates and seeds."""
    lrs = LRS.split(",")[: min(10, cells // 20)]
    seeds = cells // 20 // len(lrs)
    recipes = [
        "model=lab_foreign,lab_familiar",
        "stream=slm_rft,oracle_refined,oracle_synthesized,style_aligned,numina_subset",
        "trainer=sft,dft",
    ]
    return [*recipes, f"trainer.lr={','.join(lrs)}", f"trainer.seed={','.join(map(str, range(seeds)))}"]


def scaling(folder: Path, cluster: Cluster, _: int) -> tuple[list[Measure], list[Check], dict[str, Any]]:
    """Composition, planning and status as the grid grows."""
    found = {}
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.launch", "--child", str(size)]
        found[size] = json.loads(
            subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True).stdout.splitlines()[-1]
        )
    measures = [
        Measure(f"{size:,} cells: milliseconds to compose one", "ms", told["compose_ms"], told["hydra_ms"], 5.0, "lower")
        for size, told in found.items()
    ]
    checks = [
        Check(f"{size:,} cells: {SAMPLE} composed by Hydra are equal to ours", told["equal"], f"{told['equal']}")
        for size, told in found.items()
    ]
    thousand, ten = found[1_000], found[10_000]
    checks.append(Check(f"planning 1,000 cells ≤ {PLAN_S:g} s", thousand["plan_s"] <= PLAN_S, f"{thousand['plan_s']:.2f} s"))
    growth = ten["plan_s"] / thousand["plan_s"]
    checks.append(Check("planning 10,000 cells ≤ 15 times that", growth <= 15, f"{ten['plan_s']:.2f} s, {growth:.1f} times"))
    status_s, submit_s = status_of_thousand(folder / "status", cluster)
    checks.append(Check(f"qup status of 1,000 cells ≤ {STATUS_S:g} s", status_s <= STATUS_S, f"{status_s:.2f} s"))
    return measures, checks, {"scale": found, "submit_1000_s": round(submit_s, 2)}


def scaled(cells: int) -> dict[str, Any]:
    """Composes and plans a grid in this process; times, memory, and whether Hydra composes the same."""
    from qup.identity.resolve import resolve_grid
    from qup.launch.check import validate_grid
    from qup.launch.plan import make_plan

    with tempfile.TemporaryDirectory() as name:
        base = ["study.name=bench", f"store.dir={name}/store"]
        composer = Composer.over()
        composer.cell(base)
        (lists, made), compose_s = timed(lambda: (found := expand(composer, [*grid_of(cells), *base]), composer.grid(found)))
        assert len(made) == cells, len(made)

        def plan() -> Any:
            validate_grid(made)
            resolved = resolve_grid(made, Path(name) / "store", dry_run=True).cells
            return make_plan(resolved, Path(name) / "study")

        planned, plan_s = timed(plan)
        sample = random.Random(cells).sample(range(cells), SAMPLE)
        theirs, hydra_s = timed(lambda: [composer.by_hydra(lists[index]) for index in sample])
        equal = all(theirs[place] == made[index] for place, index in enumerate(sample))
    return {
        "compose_ms": compose_s / cells * 1e3,
        "hydra_ms": hydra_s / SAMPLE * 1e3,
        "compose_s": round(compose_s, 3),
        "plan_s": round(plan_s, 3),
        "stages": len(planned.graph.nodes),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "equal": equal,
    }


def status_of_thousand(folder: Path, cluster: Cluster) -> tuple[float, float]:
    """Seconds of `qup status` while a thousand cells wait in SLURM's queue, and of their submission."""
    overlay = overlay_in(folder, cluster)
    overlay.order("problems", sleep=3600)
    given = [*grid_of(1_000), *RESOURCES, "study.name=bench", "cluster.max_jobs=20000"]
    command = [sys.executable, str(overlay.root / "launch.py"), "-m", "hydra/launcher=slurm", *given]
    done, submit_s = timed(
        lambda: subprocess.run(command, cwd=overlay.work, env=overlay.environment(), capture_output=True, text=True, encoding="utf-8")
    )
    if done.returncode:
        raise InputError(f"our launch failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    try:
        times = []
        for _ in range(3):
            (status, said), seconds = timed(lambda: overlay.qup("status", "bench", "--json"))
            if status or len(json.loads(said)["cells"]) != 1_000:
                raise InputError(f"qup status: {said[-500:]}")
            times.append(seconds)
        return min(times), submit_s
    finally:
        cluster.cancel_all()


if __name__ == "__main__":
    run(main)
