"""`qup report` on a large study: 100 trained cells, the paper's five benchmarks of 1,517 problems, 16 samples each.

    python -m benchmarks.report [--problems 2000] [--length 250]

Results are invented, in the shapes that stages write: two students, five arms, two objectives and five seeds, and the
untuned students. `--problems` and `--length` are the size of a stream and of a trace in tokens. The report is built by the
command that a user types, in a process of its own; its memory is that process's peak. No figure has a peer: the limits
are the project's own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import Measure, conclude, run
from tests.analysis.world import World, build_study, lab_cells

BENCHMARKS = {"math_500": 500, "minerva": 272, "aime24": 30, "amc23": 40, "olympiad": 675}
SAMPLES, SEEDS = 16, 5
SECONDS, GIGABYTES = 60.0, 2.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--problems", type=int, default=2000, help="problems of a stream")
    parser.add_argument("--length", type=int, default=250, help="tokens of a trace")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="20 cells a seed")
    args = parser.parse_args()
    cells = lab_cells(seeds=range(args.seeds), benchmarks=BENCHMARKS)
    trained = sum(cell.stream.name != "base" for cell in cells)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        study, _ = build_study(root, World(cells, problems=args.problems, samples=SAMPLES, length=args.length, steps=500), "large")
        (root / "multirun").mkdir()
        (root / "multirun" / "large").symlink_to(study)
        seconds, gigabytes = built(root)
        size = (study / "report" / "report.html").stat().st_size / 1e6
    what = f"{trained} cells × {sum(BENCHMARKS.values())} problems × {SAMPLES} samples"
    measures = [
        Measure(f"report of {what}", "s", seconds, SECONDS, 1.0, "lower"),
        Measure("peak memory", "GB", gigabytes, GIGABYTES, 1.0, "lower"),
    ]
    return conclude("report", measures, page_megabytes=round(size, 2), cores=os.cpu_count())


def built(root: Path) -> tuple[float, float]:
    """Seconds and peak GB of `qup report`; the peer's column of the table is the limit."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "qup", "--dir", str(root / "multirun"), "report", "large"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"qup report ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6


if __name__ == "__main__":
    run(main)
