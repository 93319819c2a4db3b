"""A real SLURM for the tests of this folder, one a session."""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from qup.config.schema import Cluster, Resources
from qup.store import Store
from qup.study import registered
from tests.helpers.cells import cell
from tests.helpers.overlay import Overlay
from tests.helpers.slurm_cluster import Cluster as SlurmCluster
from tests.helpers.slurm_cluster import installed

SMALL = Resources(mem="50M", time="5")


def pytest_collection_modifyitems(items):
    for item in items:
        if "/slurm/" in str(item.path):
            item.add_marker(pytest.mark.slurm)
            if not installed():
                item.add_marker(
                    pytest.mark.skip(reason="SLURM's daemons are not installed (apt-get install slurmctld slurmd slurm-client)")
                )


@pytest.fixture(scope="session")
def slurm():
    root = Path(tempfile.mkdtemp(prefix="qup-slurm-"))
    cluster = SlurmCluster(root, nodes=2, cpus=16)
    cluster.start()
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(cluster.conf)
    yield cluster
    if before is None:
        del os.environ["SLURM_CONF"]
    cluster.stop()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def overlay(tmp_path, slurm):
    made = Overlay(tmp_path)
    made.env["SLURM_CONF"] = str(slurm.conf)
    yield made
    cancel(made, slurm)


def queued(overlay, slurm) -> list[str]:
    """Jobs of an overlay's studies that are in the queue; scenarios run side by side on one cluster."""
    marks = tuple(f"qup {study.identity} " for study in registered(Store(overlay.store)))
    lines = (line.partition("|") for line in slurm.run("squeue", "-h", "-r", "-o", "%i|%k").splitlines())
    return [job for job, _, comment in lines if comment.startswith(marks)]


def jobs(overlay, slurm) -> list[dict[str, str]]:
    """What the controller says of each job of an overlay, also of ended ones; their log files lie in its folder."""
    lines = slurm.run("scontrol", "show", "job", "-o").splitlines()
    return [dict(part.partition("=")[::2] for part in line.split() if "=" in part) for line in lines if f"{overlay.work}/" in line]


def cancel(overlay, slurm) -> None:
    """Ends what an overlay's studies left in the queue."""
    jobs = queued(overlay, slurm)
    if jobs:
        slurm.run("scancel", *jobs, check=False)
        slurm.wait_for(lambda: not queued(overlay, slurm), "an empty queue")


def small_cluster(**changes) -> Cluster:
    """Every stage within the virtual nodes."""
    fields = {name: SMALL for name, field in Cluster.__dataclass_fields__.items() if field.type == "Resources"}
    return replace(Cluster(**fields), **changes)


def grid(**changes):
    """Four trained cells and the base one."""
    cluster = small_cluster(**changes)
    cells = [cell(stream, objective) for stream in ("slm_rft", "oracle_refined") for objective in ("sft", "dft")] + [cell("base")]
    return [replace(one, cluster=cluster) for one in cells]
