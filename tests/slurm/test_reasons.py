"""Why a stage failed is told by status, logs and the failed study's report, also where Python never started."""

import json
from dataclasses import replace

import pytest

from tests.slurm.conftest import SMALL, grid
from tests.slurm.test_life import state_of

CASES = {
    "setup": ("echo no module named cuda-99 >&2; exit 3", "no module named cuda-99"),
    "module": (
        "export PYTHONPATH=/nowhere; mkdir -p $TMPDIR/shadow; echo 'raise ImportError(\"shadowed\")' > $TMPDIR/shadow/submitit.py; export PYTHONPATH=$TMPDIR/shadow",
        "shadowed",
    ),
    "silent": ("kill -9 $$", "before it said anything"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_job_that_fails_before_python_starts_says_why(overlay, slurm, case, tmp_path):
    line, words = CASES[case]
    cells = grid(problems=replace(SMALL, setup=(line.replace("$TMPDIR", str(tmp_path)),)))[:1]
    assert overlay.launch(cells, "slurm")[0] == 0
    assert overlay.qup("wait", "test")[0] == 1
    assert words in state_of(overlay, "problems")["detail"]
    status, out = overlay.qup("logs", "0", "problems")
    if case == "silent":
        assert "no log; failed: killed by SIGKILL" in out
    else:
        assert status == 0, out
        assert words in out
    assert overlay.qup("report", "test")[0] == 0
    (record,) = (overlay.store / "studies" / "test" / "failed").glob("problems-*.json")
    told = json.loads(record.read_text())
    assert words in told["error"]
    assert case == "silent" or words in told["output"]
