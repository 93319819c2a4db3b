"""What all jobs of a study have in common, written down for later waves and retries."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qup.config.fingerprint import build, plain
from qup.config.schema import Cluster, Config, Resources
from qup.errors import QupError
from qup.files import write_json
from qup.launch.plan import Plan
from qup.launch.preflight.limits import check_limits
from qup.launch.process import NO_PYTHON, NO_STORE
from qup.launch.slurm.commands import Slurm
from qup.launch.snapshot import Snapshot, freeze_code
from qup.store import Lease, Store
from qup.study import Study, identity


@dataclass(frozen=True)
class Site:
    """What all of a submission's jobs have in common."""

    study: str
    study_dir: Path
    store: Store
    cluster: Cluster
    code: Path | None
    """Snapshot on PYTHONPATH; None: whatever is there when the job starts."""
    cwd: Path

    @property
    def identity(self) -> str:
        """By which the study's jobs are told from all others."""
        return identity(self.study, self.store.root)


def make_site(plan: Plan, first: Config, say: Callable[[str], None]) -> Site:
    """Freezes the code, unless study.code=live, and says what was left out of it."""
    snapshot: Snapshot | None = freeze_code(plan.store) if first.study.code == "frozen" else None
    if snapshot and snapshot.left_out:
        listed = ", ".join(map(str, snapshot.left_out[:3])) + (", …" if len(snapshot.left_out) > 3 else "")
        say(f"{len(snapshot.left_out)} files beside the code are no code and were not frozen with it: {listed}")
    return Site(plan.study, plan.study_dir, plan.store, first.cluster, snapshot.path if snapshot else None, Path.cwd())


def on_slurm(study_dir: Path) -> bool:
    """Whether a study was ever submitted."""
    return (study_dir / "slurm" / "site.json").exists()


def save_site(site: Site) -> None:
    """Writes down what later waves and retries need."""
    write_json(
        site.study_dir / "slurm" / "site.json",
        {"code": str(site.code) if site.code else None, "cwd": str(site.cwd), "cluster": plain(site.cluster)},
    )


def load_site(study_dir: Path) -> Site:
    """What a study was submitted with; QupError where it never was."""
    study = Study.load(study_dir)
    path = study_dir / "slurm" / "site.json"
    if not on_slurm(study_dir):
        raise QupError(f"study {study_dir.name} was not submitted to SLURM; launch it with hydra/launcher=slurm")
    content = json.loads(path.read_text(encoding="utf-8"))
    code = Path(content["code"]) if content["code"] else None
    return Site(study.name, study_dir, study.open_store(), build(Cluster, content["cluster"]), code, Path(content["cwd"]))


def driver_record(study_dir: Path) -> Path:
    """Who submits what is left: {job, or none for a process; error where it ended with one}. Gone once nothing is left."""
    return study_dir / "slurm" / "driver.json"


@contextmanager
def queue_lock(store: Store) -> Iterator[None]:
    """One submitter at a time on a store; a dead one's lease is taken over."""
    lease = Lease(store.root / "queue" / "submitting.lease", min(store.lease_s, 30.0))
    waited = time.monotonic()
    while not lease.acquire():
        if time.monotonic() - waited > 600:
            raise QupError(f"another client has been submitting to {store.root} for ten minutes; see {lease.path}")
        time.sleep(0.1)
    lease.watch()
    try:
        yield
    finally:
        lease.release()


def check_site(plan: Plan, cluster: Cluster, slurm: Slurm) -> None:
    """Refuses what the cluster can't give, before submission."""
    used: dict[str, Resources] = {}
    for planned in plan.to_run.values():
        name = next(field for field in _cluster_fields(cluster) if getattr(cluster, field) == planned.resources)
        used[name] = planned.resources
    used["report"] = cluster.report
    check_limits(cluster, used, slurm.partitions())


def _cluster_fields(cluster: Cluster) -> list[str]:
    return [name for name in cluster.__dataclass_fields__ if isinstance(getattr(cluster, name), Resources)]


def setup_lines(site: Site, resources: Resources) -> list[str]:
    """Shell lines before a stage: checks of the node first, then the frozen code, then the user's own."""
    python, store = shlex.quote(sys.executable), shlex.quote(str(site.store.root))
    lines = [
        f'[ -x {python} ] || {{ echo "qup: no Python environment {sys.executable} on $(hostname)" >&2; exit {NO_PYTHON}; }}',
        f'[ -d {store} ] || {{ echo "qup: the store {site.store.root} is not visible on $(hostname)" >&2; exit {NO_STORE}; }}',
        f"cd {shlex.quote(str(site.cwd))}",
        "export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 PYTHONSAFEPATH=1 TOKENIZERS_PARALLELISM=false",
        f"export OMP_NUM_THREADS={resources.cpus}",
    ]
    if site.code is not None:
        lines.append(f"export PYTHONPATH={shlex.quote(str(site.code))}${{PYTHONPATH:+:$PYTHONPATH}}")
    return lines + list(resources.setup)
