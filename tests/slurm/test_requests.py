"""What is asked of a real sbatch beside qup's own options, and what a training's ranks do when rank 0 is gone."""

from __future__ import annotations

import time
from dataclasses import replace

from tests.slurm.conftest import SMALL, grid, jobs
from tests.slurm.test_life import state_of


def test_a_users_own_options_stand_beside_ours(overlay, slurm):
    extra = {"comment": "cost centre 7", "dependency": "singleton", "exclusive": True, "nice": 7, "mail_type": None}
    asked = replace(SMALL, extra=extra, partition="main,main", at_once=1, srun=("--cpu-bind=none",))
    overlay.order("problems", wait=True)
    status, out = overlay.launch(grid(train=asked), "slurm")
    assert status == 0, out
    comments = slurm.run("squeue", "-h", "-o", "%k")
    assert any(line.startswith("qup ") and line.endswith("cost centre 7") for line in comments.splitlines()), comments
    training = next(job for job in jobs(overlay, slurm) if job["JobName"] == "test.train")
    assert (training["ArrayTaskThrottle"], training["OverSubscribe"], training["Nice"]) == ("1", "NO", "7")
    assert "singleton" in slurm.run("squeue", "-h", "-o", "%j %E")
    overlay.go("problems")
    assert overlay.qup("wait", "test", timeout=240)[0] == 0
    status, out = overlay.qup("status", "test")
    assert status == 0 and "lost" not in out, out


def test_a_dry_run_says_what_the_partitions_cannot_give(overlay, slurm):
    asked = grid(train=replace(SMALL, partition="main,nowhere"), evaluate=replace(SMALL, gpus="64"))
    status, out = overlay.launch([replace(one, study=replace(one.study, dry_run=True)) for one in asked], "slurm")
    assert status == 0, out
    assert "would be refused: cluster.train.partition='main,nowhere'" in out
    assert "would be refused: cluster.evaluate.gpus='64'" in out


EARLY = """def load_inputs(store: Store, job: Job) -> dict[str, Artifact]:
    if job.ref.kind == "train" and os.environ.get("RANK") == "0":
        Path(os.environ["QUP_TEST_CONTROL"], job.study).touch()
        {what}
"""


def test_when_rank_0_fails_early_all_ranks_end_within_a_minute_and_status_says_which(overlay, slurm):
    names = []
    for name, what in (("raised", 'raise StoreError("the disk is full")'), ("killed", "os.kill(os.getpid(), 9)")):
        path = overlay.root / "qup" / "launch" / "execution.py"
        text = path.read_text(encoding="utf-8")
        head = EARLY.partition("\n")[0] + "\n"
        assert text.count(head) == 1
        path.write_text(text.replace(head, EARLY.replace("{what}", what)), encoding="utf-8")
        cells = [
            replace(one, study=replace(one.study, name=name), trainer=replace(one.trainer, lr=len(name) + 0.1 * len(names)))
            for one in grid(train=replace(SMALL, tasks=2))[:1]
        ]
        status, out = overlay.launch(cells, "slurm")
        path.write_text(text, encoding="utf-8")
        assert status == 0, out
        names.append(name)
    for name in names:
        assert overlay.qup("wait", name, timeout=240)[0] == 1
    raised, killed = (state_of(overlay, "train", study=name) for name in names)
    assert "rank 0 of 2: the disk is full" in raised["detail"], raised
    assert killed["detail"].startswith("killed by SIGKILL (out of memory, perhaps), rank 0 before the others"), killed
    assert "srun" not in killed["detail"] and "slurmstepd" not in killed["detail"], killed
    trainings = {job["JobName"]: job for job in jobs(overlay, slurm) if job["JobName"].endswith(".train")}
    assert set(trainings) == {f"{name}.train" for name in names}
    for name in names:
        job = trainings[f"{name}.train"]
        ended = time.mktime(time.strptime(job["EndTime"], "%Y-%m-%dT%H:%M:%S"))
        assert job["JobState"] == "FAILED" and ended - (overlay.control / name).stat().st_mtime < 60, job


def test_a_launch_from_inside_an_allocation_does_the_same(overlay, slurm):
    overlay.env |= {
        "SLURM_MEM_PER_CPU": "10", "SBATCH_MEM_PER_CPU": "10", "SBATCH_EXPORT": "NONE", "SBATCH_PARTITION": "nowhere", "SBATCH_HOLD": "1",
        "SLURM_NTASKS": "7", "SLURM_JOB_NAME": "shell", "SQUEUE_USERS": "nobody", "SQUEUE_PARTITION": "nowhere", "SQUEUE_STATES": "FAILED",
        "SINFO_PARTITION": "nowhere", "SLURM_EXPORT_ENV": "NONE", "SALLOC_WAIT_ALL_NODES": "1",
    }  # fmt: skip
    status, out = overlay.launch(grid()[:1], "slurm")
    assert status == 0, out
    assert overlay.qup("wait", "test", timeout=240)[0] == 0
    assert len(overlay.runs("ended")) == len({run["key"] for run in overlay.runs("ended")}) > 8
