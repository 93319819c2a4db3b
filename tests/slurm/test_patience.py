"""A controller that is slow, full or away: submission waits, submits once, and says who is left to go on."""

import json
import os
import signal

from tests.slurm.conftest import SMALL, grid

LOST = """if [ $N = 2 ]; then $REAL "$@" >/dev/null; echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1; fi"""
"""The second call submits its job, and the answer is lost."""
REFUSED = """if [ $N = 2 ]; then echo "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)" >&2; exit 1; fi"""
FULL = """if [ ! -e $QUP_TEST_CONTROL/room ] && [ $N -gt 5 ]; then
echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)" >&2
exit 1; fi"""


def alive(slurm):
    return slurm.run("squeue", "-h", "-r", "-o", "%i|%k").splitlines()


def test_a_call_whose_answer_was_lost_is_not_submitted_twice(overlay, slurm):
    overlay.wrap("sbatch", LOST)
    overlay.order("problems", wait=True)
    status, out = overlay.launch(grid()[:1], "slurm")
    assert status == 0, out
    marks = [line.partition("|")[2].split()[2] for line in alive(slurm)]
    assert len(marks) == len(set(marks)) > 5
    overlay.go("problems")
    assert overlay.qup("wait", "test")[0] == 0
    counts = [entry["kind"] + entry["key"] for entry in overlay.runs()]
    assert len(counts) == len(set(counts))


def test_a_controller_away_for_one_call_is_waited_for(overlay, slurm):
    overlay.wrap("sbatch", REFUSED)
    status, out = overlay.launch(grid()[:1], "slurm")
    assert status == 0, out
    assert overlay.qup("wait", "test")[0] == 0


def test_at_slurms_own_limit_the_rest_is_submitted_when_there_is_room(overlay, slurm):
    overlay.wrap("sbatch", FULL)
    status, out = overlay.launch(grid()[:1], "slurm")
    assert status == 0, out
    assert "submitted from this machine" in out
    (overlay.control / "room").touch()
    status, out = overlay.qup("wait", "test")
    assert status == 0, out
    assert not (overlay.store / "studies" / "test" / "slurm" / "driver.json").exists()


def test_where_the_report_alone_finds_no_room_it_is_submitted_later(overlay, slurm):
    overlay.wrap("sbatch", FULL.replace("-gt 5", "-gt 3"))
    status, out = overlay.launch(grid()[4:], "slurm")
    assert status == 0, out
    assert "as 3 sbatch calls" in out and "submitted from this machine" in out
    (overlay.control / "room").touch()
    driver = overlay.store / "studies" / "test" / "slurm" / "driver.json"
    slurm.wait_for(lambda: not driver.exists(), "the report's submission")
    assert overlay.qup("wait", "test")[0] == 0


def test_a_dead_driver_is_told_ends_the_wait_and_is_brought_back_by_retry(overlay, slurm):
    overlay.order("problems", wait=True)
    status, out = overlay.launch(grid(oracle=replace_here())[1:3], "slurm")
    assert status == 0, out
    pid = int(out.partition("in process ")[2].partition(",")[0])
    os.kill(pid, signal.SIGKILL)
    overlay.go("problems")
    status, out = overlay.qup("wait", "test")
    assert status == 1, out
    _, out = overlay.qup("status", "test")
    assert "the driver ended before everything was submitted" in out
    _, out = overlay.qup("status", "test", "--json")
    assert json.loads(out)["driver"]
    status, out = overlay.qup("retry", "test")
    assert status == 0, out
    status, out = overlay.qup("wait", "test")
    assert status == 0, out
    _, out = overlay.qup("status", "test", "--json")
    assert json.loads(out)["good"] and not json.loads(out)["driver"]


def replace_here():
    from dataclasses import replace

    return replace(SMALL, where="here")
